"""GPUs of an engine that finds them itself, and the words in which they are said to be too few."""

from collections.abc import Sequence

import pytest

from gateway.engines.interface import Node
from gateway.errors import EngineError, LeaseError
from gateway.gpu_requests import parse_gpu_request
from gateway.gpus.node_inventory import NodeInventory
from gateway.gpus.reading import Reading
from gateway.gpus.selection import Situation, choose
from gateway.model import Gpu, GpuUuid, NodeName

H200 = tuple(Gpu(GpuUuid(f"n1:nvidia.com/gpu:{number}"), "NVIDIA-H200") for number in range(2))


def read(*nodes: Node) -> Reading:
    return NodeInventory(lambda: list(nodes)).read()


def test_those_of_a_node_that_does_not_answer_are_listed_with_a_note() -> None:
    reading = read(Node(NodeName("n1"), gpus=H200), Node(NodeName("n2"), is_ready=False, gpus=()))
    assert reading.gpus == H200
    assert reading.notes == ("node n2 does not answer",)


@pytest.mark.parametrize(
    ("nodes", "asked", "message"),
    [
        ((), "1", "the cluster has no GPU"),
        ((Node(NodeName("n1"), gpus=H200),), "3", "3 GPUs asked, the cluster has 2"),
        ((Node(NodeName("n1"), gpus=H200),), "b200:1", "1 B200 GPU asked, the cluster has none"),
    ],
)
def test_a_refusal_speaks_of_the_cluster(nodes: Sequence[Node], asked: str, message: str) -> None:
    """The gateway's own host has nothing to do with it."""
    with pytest.raises(LeaseError) as refusal:
        choose(parse_gpu_request(asked), read(*nodes), Situation({}, {}))
    assert refusal.value.message == message


def test_an_engine_that_cannot_be_asked_has_none_and_says_why() -> None:
    def silent() -> list[Node]:
        raise EngineError("engine.unreachable", "the cluster does not answer")

    reading = NodeInventory(silent).read()
    assert (reading.gpus, reading.place) == ((), "the cluster")
    assert "the cluster does not answer" in reading.notes[0]
