"""What a cluster does not give, or somebody asks wrongly: one line, a hint, an exit code, and nothing half-made."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.environments import NAMESPACE, NODES, cluster_variables, kubectl, objects
from tests.support.gateway_process import GatewayProcess

pytestmark = [pytest.mark.engine, pytest.mark.slow]
_RIGHTS = Path(__file__).parents[2] / "containers/gateway/manifests/gateway/rights.yaml"
_ACCOUNT = "system:serviceaccount:devgw-gateway:devgw"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("bad"), cluster_variables())
    try:
        gateway.devgw("init")
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def gateway(made: GatewayProcess) -> Iterator[GatewayProcess]:
    """Whatever a test did, nothing of it is left in the cluster, nor among the gateway's rows."""
    before = objects()
    yield made
    assert made.devgw_json("list")["environments"] == []
    assert objects() == before


def refused(gateway: GatewayProcess, code: int, *options: str, **variables: str) -> str:
    """Have alice's environment be refused with an exit code; return the one line of it and its hint."""
    key = f"{gateway.make_key('alice')}.pub"
    changed = replace(gateway, variables=gateway.variables | variables)
    done = changed.devgw("create", "alice", "--key", key, "--no-wait", *options, expect=code)
    assert done.stdout == ""
    said = [line for line in done.stderr.splitlines() if line.startswith(("devgw: error", "devgw: hint"))]
    assert len(said) == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(said)


def test_a_wrong_namespace(gateway: GatewayProcess) -> None:
    said = refused(gateway, 1, DEVGW_KUBERNETES_NAMESPACE="nowhere")
    assert "has no namespace nowhere" in said
    assert "kubectl create namespace" in said


def test_a_storage_class_that_is_not_there(gateway: GatewayProcess) -> None:
    said = refused(gateway, 1, DEVGW_KUBERNETES_HOME_CLASS="fast")
    assert "no storage class fast" in said
    assert "kubernetes.home_class" in said


def test_a_resource_that_no_node_has(gateway: GatewayProcess) -> None:
    said = refused(gateway, 1, "--gpu", "1", DEVGW_KUBERNETES_GPU_RESOURCE="amd.com/gpu")
    assert "the cluster has no GPU" in said


def test_a_model_that_no_node_has(gateway: GatewayProcess) -> None:
    said = refused(gateway, 1, "--gpu", "b200:1")
    assert "1 B200 GPU asked, the cluster has none" in said
    assert "NVIDIA-H200" in said


def test_a_node_that_is_none(gateway: GatewayProcess) -> None:
    said = refused(gateway, 4, "--node", "n9")
    assert "no node 'n9'" in said
    assert "n1, n2" in said


def test_more_processors_than_a_node_has(gateway: GatewayProcess) -> None:
    """They are not lowered to those of the gateway's own machine."""
    assert "no node has cpu 48" in refused(gateway, 1, "--cpus", "48")


def test_an_image_that_no_node_can_get(gateway: GatewayProcess) -> None:
    said = refused(gateway, 4, "--image", "registry.example.org/none:1")
    assert "registry.example.org/none:1" in said


def test_a_cluster_that_does_not_answer(gateway: GatewayProcess, tmp_path: Path) -> None:
    kubeconfig = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    silent = tmp_path / "silent"
    silent.write_text(yaml.safe_dump(kubeconfig))
    said = refused(gateway, 1, DEVGW_KUBERNETES_KUBECONFIG=str(silent))
    assert "https://127.0.0.1:1 does not answer" in said


def test_an_account_without_the_right_to_create_pods(gateway: GatewayProcess, tmp_path: Path) -> None:
    """Named as the API names it, by `create` and by the doctor; with the Role of the manifests it may."""
    kubectl("apply", "-f", str(_RIGHTS.with_name("namespaces.yaml")))
    kubectl("delete", "-f", str(_RIGHTS), "--ignore-not-found")
    kubeconfig = _as_account(tmp_path)
    said = refused(gateway, 1, DEVGW_KUBERNETES_KUBECONFIG=kubeconfig)
    assert "cannot" in said
    assert "kubernetes-engine.md" in said
    assert "create pods" in _doctor(gateway, kubeconfig)["engine.rights"]["message"]
    kubectl("apply", "-f", str(_RIGHTS))
    found = _doctor(gateway, kubeconfig)
    assert found["engine.rights"]["level"] == found["engine.storage"]["level"] == "ok"
    assert found["engine.gpus"]["message"] == "the nodes have 4 of nvidia.com/gpu"
    without = _without_pods(kubectl("get", "role", "devgw", "-n", NAMESPACE, "-o", "json"))
    kubectl("replace", "-f", "-", text=without)
    said = refused(gateway, 1, DEVGW_KUBERNETES_KUBECONFIG=kubeconfig)
    assert 'cannot create resource "pods"' in said


def test_a_pod_of_somebody_else_with_our_labels(gateway: GatewayProcess) -> None:
    """It is neither used nor removed, and its image gets nothing of alice's."""
    gateway.create("alice")
    (mine,) = objects("pods")
    made = json.loads(kubectl("get", "-n", NAMESPACE, mine, "-o", "json"))
    gateway.devgw("stop", "alice")
    foreign = _foreign(made)
    kubectl("create", "-f", "-", text=json.dumps(foreign))
    try:
        done = gateway.devgw("start", "alice", expect=6)
        assert "was not made by this gateway" in done.stderr
        assert mine in objects("pods")
    finally:
        kubectl("delete", "-n", NAMESPACE, mine, "--wait=true", "--grace-period=1")
    gateway.devgw("start", "alice")
    gateway.devgw("delete", "alice", "--force", "--purge", "--yes")


def test_the_doctor_has_a_line_for_each_node(gateway: GatewayProcess) -> None:
    found = gateway.devgw("doctor", "-o", "json", expect=None)
    states = [one for one in json.loads(found.stdout)["findings"] if one["check"] == "node.state"]
    assert [one["message"] for one in states] == [f"{node} answers" for node in NODES]


def _doctor(gateway: GatewayProcess, kubeconfig: str) -> dict[str, dict[str, str]]:
    changed = replace(gateway, variables=gateway.variables | {"DEVGW_KUBERNETES_KUBECONFIG": kubeconfig})
    done = changed.devgw("doctor", "-o", "json", expect=None)
    return {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def _as_account(directory: Path) -> str:
    """Return a kubeconfig that acts as the gateway's account in the cluster, with that account's rights alone."""
    kubeconfig = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    kubectl("apply", "-f", "-", text=yaml.safe_dump(next(yaml.safe_load_all(_RIGHTS.read_text()))))
    secrets = "jsonpath={.secrets[0].name}"
    name = kubectl("-n", "devgw-gateway", "get", "serviceaccount", "devgw", "-o", secrets)
    token = kubectl("-n", "devgw-gateway", "get", "secret", name, "-o", "go-template={{.data.token | base64decode}}")
    kubeconfig["users"][0]["user"] = {"token": token}
    file = directory / "account"
    file.write_text(yaml.safe_dump(kubeconfig))
    return str(file)


def _without_pods(role: str) -> str:
    changed = json.loads(role)
    for rule in changed["rules"]:
        if rule["resources"] == ["pods"]:
            rule["verbs"] = ["get", "list", "watch", "patch", "delete"]
    return json.dumps(changed)


def _foreign(made: dict[str, Any]) -> dict[str, Any]:
    """Return a pod of the same name and labels that nobody's Secret owns."""
    metadata = {key: made["metadata"][key] for key in ("name", "namespace", "labels")}
    container = {"name": "environment", "image": made["spec"]["containers"][0]["image"], "imagePullPolicy": "Never",
                 "command": ["sleep", "600"]}  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
