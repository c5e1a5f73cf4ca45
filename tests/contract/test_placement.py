"""The promises of an engine that finds node and GPUs itself; which they are, it says once the environment is there."""

from dataclasses import replace

import pytest

from gateway.engines.interface import Node
from gateway.errors import LeaseError, QueuedError
from gateway.model import EnvironmentRef, GpuUuid, Limits
from tests.contract.subject import MIB, EngineUnderTest

ALICE = EnvironmentRef.parse("alice")
SMALL = Limits(memory_bytes=64 * MIB, cpus=0.1, pids=64, shm_bytes=MIB)
"""Many of these fit on any node, so that it is not full before its GPUs are given."""


def place(subject: EngineUnderTest, handle: str = "alice", **wishes: object) -> tuple[Node, tuple[GpuUuid, ...]]:
    """Have an environment run; return its node and the GPUs it was given."""
    spec = replace(subject.spec(handle), **wishes)
    subject.engine.create(spec)
    subject.engine.start(spec.ref)
    observed = subject.engine.observe(spec.ref)
    return next(node for node in subject.engine.nodes() if node.name == observed.node), observed.gpus


@pytest.mark.parametrize(("wish", "count"), [("", 0), ("0", 0), ("1", 1), ("2", 2), ("h200:2", 2), ("H200", 1)])
def test_it_gives_as_many_gpus_as_are_asked_for_all_of_one_node(
    several: EngineUnderTest, wish: str, count: int
) -> None:
    """By number, or by model as whole words of its name."""
    assert several.engine.scheduling.places_gpus
    node, gpus = place(several, gpu_request=wish)
    assert len(set(gpus)) == len(gpus) == count
    assert set(gpus) <= {gpu.uuid for gpu in node.gpus}


def test_no_gpu_is_given_twice(several: EngineUnderTest) -> None:
    """Where the engine keeps it, not one of a stopped environment either; when none is left, waiting may help."""
    total = sum(len(node.gpus) for node in several.engine.nodes())
    one = {"gpu_request": "1", "limits": SMALL}
    given = [gpu for number in range(total) for gpu in place(several, f"user{number}", **one)[1]]
    assert len(set(given)) == total
    if several.keeps_gpus_while_stopped:
        several.engine.stop(EnvironmentRef.parse("user0"), 5)
    with pytest.raises(QueuedError) as refusal:
        place(several, **one)
    assert refusal.value.code == "gpu.none-free"
    observed = several.engine.observe(ALICE)
    assert observed is None or not (observed.running or observed.gpus)
    several.engine.delete(ALICE)
    several.engine.delete(EnvironmentRef.parse("user0"))
    assert len(place(several, **one)[1]) == 1


@pytest.mark.parametrize("wish", ["64", "h100:1", "a100"])
def test_what_no_node_has_is_refused_and_not_waited_for(several: EngineUnderTest, wish: str) -> None:
    with pytest.raises(LeaseError) as refusal:
        place(several, gpu_request=wish)
    assert refusal.value.code == "gpu.too-many"
    assert several.engine.observe_all() == []


def test_a_node_that_is_asked_for_is_the_one(several: EngineUnderTest) -> None:
    for number, node in enumerate(several.engine.nodes()):
        assert place(several, f"user{number}", node=node.name)[0].name == node.name


def test_a_node_that_must_be_avoided_is_avoided(several: EngineUnderTest) -> None:
    """However full the others are."""
    avoided, *others = (node.name for node in several.engine.nodes())
    for number in range(6):
        assert place(several, f"user{number}", avoided_nodes=(avoided,), limits=SMALL)[0].name in others


def test_a_node_that_does_not_answer_gets_nothing_new(several: EngineUnderTest) -> None:
    assert several.machines is not None
    away = several.engine.nodes()[0].name
    several.machines.cut(away)
    assert place(several)[0].name != away
    with pytest.raises(QueuedError):
        place(several, "bob", node=away)
