"""The NetworkPolicy of an environment: what it opens, and that it opens nothing else."""

import ipaddress

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.network_policy import egress_rules, network_policy
from gateway.model import Egress, EnvironmentRef

ALICE = EnvironmentRef.parse("alice")


def is_open(egress: str, address: str) -> bool:
    """Say whether a policy lets packets to an address out, as the API defines ipBlock."""
    target = ipaddress.ip_address(address)
    for rule in egress_rules(Egress(egress), ("9.9.9.9",)):
        if rule.get("ports") and {port["port"] for port in rule["ports"]} == {53}:
            continue
        for peer in rule["to"]:
            block = peer["ipBlock"]
            if target in ipaddress.ip_network(block["cidr"]) and not any(
                target in ipaddress.ip_network(one) for one in block.get("except", ())
            ):
                return True
    return False


def test_nobody_comes_in() -> None:
    """Not even another environment of the same user."""
    policy = network_policy("lab1", ALICE, Egress.INTERNET, KubernetesSettings())
    assert policy["spec"]["ingress"] == []
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["podSelector"]["matchLabels"] == policy["metadata"]["labels"]


def test_gateways_that_are_named_come_in() -> None:
    """By the namespace and the label of their pods, or by address; no namespace alone would do."""
    settings = KubernetesSettings.model_validate(
        {"gateway_namespace": "devgw-gateway", "gateway_networks": ["10.0.0.7/32", "fd00::7/128"]}
    )
    [rule] = network_policy("lab1", ALICE, Egress.NONE, settings)["spec"]["ingress"]
    assert list(rule) == ["from"]
    assert rule["from"] == [
        {"ipBlock": {"cidr": "10.0.0.7/32"}},
        {"ipBlock": {"cidr": "fd00::7/128"}},
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "devgw-gateway"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "devgw"}},
        },
    ]


def test_nobody_comes_in_where_streams_go_by_exec() -> None:
    settings = KubernetesSettings(gateway_namespace="devgw-gateway", pod_network="never")
    assert network_policy("lab1", ALICE, Egress.NONE, settings)["spec"]["ingress"] == []


def test_without_egress_nothing_goes_out() -> None:
    assert network_policy("lab1", ALICE, Egress.NONE, KubernetesSettings())["spec"]["egress"] == []


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_internet_holds_public_addresses(address: str) -> None:
    assert is_open("internet", address)


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.1",
        "168.63.129.16",
        "fc00::1",
        "fe80::1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)
def test_internet_holds_nothing_private(address: str) -> None:
    """Nodes, other pods, the API server and the cloud's metadata among them."""
    assert not is_open("internet", address)


def test_a_list_opens_what_it_names() -> None:
    listed = "203.0.113.0/24:443, 10.1.0.7/32"
    assert (is_open(listed, "203.0.113.9"), is_open(listed, "10.1.0.7")) == (True, True)
    assert not is_open(listed, "10.1.0.8")
    named = egress_rules(Egress(listed), ())
    assert named[0]["to"][0]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert {"protocol": "TCP", "port": 443} in named[1]["ports"]
