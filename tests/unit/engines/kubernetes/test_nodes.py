"""The nodes of a cluster, and which of them an environment may be put on."""

import pytest

from gateway.engines.kubernetes.nodes import affinity_of, node_of, quantity, require_place
from gateway.errors import DevgwError
from gateway.gpu_requests import parse_gpu_request
from gateway.model import GpuUuid, Limits, NodeName
from tests.unit.engines.kubernetes.made import SETTINGS, node, spec_of

NODES = [node("n1"), node("n2", model="NVIDIA-A100-SXM4-80GB")]
UUID = GpuUuid("GPU-0a1b2c3d")


def test_a_node_lists_a_gpu_for_each_that_it_counts() -> None:
    """Those that environments have by their UUID, the others by their number: only a pod is told which it has."""
    found = node_of(node("n1"), [UUID], SETTINGS)
    assert [gpu.uuid for gpu in found.gpus or ()] == [UUID, "n1:nvidia.com/gpu:1"]
    assert (found.is_ready, found.takes_new, found.conditions) == (True, True, ())


@pytest.mark.parametrize("ready", ["False", "Unknown"])
def test_a_node_that_is_not_ready_does_not_answer(ready: str) -> None:
    found = node_of(node("n1", ready=ready), (), SETTINGS)
    assert (found.is_ready, found.conditions[0]) == (False, "NotReady")


def test_a_cordoned_node_takes_nothing_new() -> None:
    assert not node_of(node("n1", unschedulable=True), (), SETTINGS).takes_new


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"gpu_request": "3"}, "gpu.too-many"),
        ({"gpu_request": "b200:1"}, "gpu.too-many"),
        ({"gpu_request": "1g.10gb"}, "gpu.too-many"),
        ({"gpus": (UUID,)}, "gpu.injection"),
        ({"gpu_request": "GPU-0a1b2c3d4e"}, "gpu.injection"),
        ({"node": NodeName("n9")}, "node.not-found"),
        ({"limits": Limits(2**30, 100.0, 64, 2**20)}, "engine.refused"),
        ({"limits": Limits(2**40, 1.0, 64, 2**20)}, "engine.refused"),
    ],
)
def test_what_no_node_could_ever_hold_is_refused(changes: dict[str, object], code: str) -> None:
    spec = spec_of(**changes)
    with pytest.raises(DevgwError) as refusal:
        require_place(spec, parse_gpu_request(spec.gpu_request), NODES, SETTINGS)
    assert refusal.value.code == code


def rules(**changes: object) -> dict[str, list[str]]:
    """Return the nodes that a pod may and must not be on."""
    spec = spec_of(**changes)
    found = affinity_of(spec, parse_gpu_request(spec.gpu_request), NODES, SETTINGS)
    if not found:
        return {}
    (term,) = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return {rule["operator"]: rule["values"] for rule in term["matchExpressions"]}


def test_where_nothing_is_asked_every_node_will_do() -> None:
    assert rules() == rules(gpu_request="1") == {}


def test_a_node_and_a_model_and_what_to_avoid_are_rules() -> None:
    assert rules(node=NodeName("n2")) == {"In": ["n2"]}
    assert rules(gpu_request="a100:1") == {"In": ["n2"]}
    assert rules(avoided_nodes=(NodeName("n1"),)) == {"NotIn": ["n1"]}


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("500m", 0.5), ("8Gi", 2**33), ("1k", 1000), ("?", 0)])
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value
