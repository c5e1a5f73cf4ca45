"""The NetworkPolicy of an environment: gateways alone reach it, and it reaches what its egress names. Pure."""

from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.names import labels_of, object_name
from gateway.engines.packet_filter import NOT_PUBLIC
from gateway.model import Egress, EnvironmentRef
from policies.egress import EgressTarget
from policies.ports import ANY_PORT

_NOT_PUBLIC_6 = (
    "::/96",  # unspecified, loopback, IPv4-compatible
    "64:ff9b::/96",  # IPv4 behind NAT64, private addresses among them
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: holds IPv4 addresses
    "fc00::/7",  # unique local
    "fe80::/10",  # link-local
    "ff00::/8",  # multicast
)
_GATEWAY_LABELS = {"app.kubernetes.io/name": "devgw"}
_DNS_PORTS = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]


def network_policy(
    gateway_id: str, ref: EnvironmentRef, egress: Egress, settings: KubernetesSettings
) -> dict[str, Any]:
    """Return the object: only the gateways that the settings name come in, and what rules of egress name goes out."""
    labels = labels_of(gateway_id, ref)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": object_name(gateway_id, ref), "labels": labels},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": _ingress_rules(settings),
            "egress": egress_rules(egress, settings.dns_servers),
        },
    }


def _ingress_rules(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """Return the rules; what listens for the gateway has a port of its own in each pod, so none is named."""
    peers = [_block(str(network)) for network in settings.gateway_networks]
    if settings.gateway_namespace:
        namespace = {"matchLabels": {"kubernetes.io/metadata.name": settings.gateway_namespace}}
        peers.append({"namespaceSelector": namespace, "podSelector": {"matchLabels": _GATEWAY_LABELS}})
    return [{"from": peers}] if peers and settings.pod_network != "never" else []


def egress_rules(egress: Egress, dns_servers: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rules; names can be looked up wherever anything is open."""
    rule = egress.rule
    if rule.mode == "none":
        return []
    rules = [_names(dns_servers), *(_target(target) for target in rule.targets)]
    if rule.mode == "internet":
        public = [_block("0.0.0.0/0", NOT_PUBLIC), _block("::/0", _NOT_PUBLIC_6)]
        rules.append({"to": public})
    return rules


def _names(dns_servers: tuple[str, ...]) -> dict[str, Any]:
    if dns_servers:
        peers = [_block(f"{server}/{128 if ':' in server else 32}") for server in dns_servers]
        return {"to": peers, "ports": _DNS_PORTS}
    cluster_dns = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    return {"to": [cluster_dns], "ports": _DNS_PORTS}


def _target(target: EgressTarget) -> dict[str, Any]:
    peer = {"to": [_block(str(target.network))]}
    if target.ports == ANY_PORT:
        return peer
    ports = [
        {"protocol": protocol, "port": first} | ({"endPort": last} if last != first else {})
        for first, last in target.ports.ranges
        for protocol in ("TCP", "UDP")
    ]
    return {**peer, "ports": ports}


def _block(cidr: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr} | ({"except": list(without)} if without else {})}
