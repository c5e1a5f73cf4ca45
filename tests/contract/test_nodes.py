"""The promises about nodes: what every engine says of them, and what one of several does when one is cut off."""

from collections.abc import Callable

import pytest

from gateway.errors import ConflictError, NodeError, NotFoundError
from gateway.model import EnvironmentRef, NodeName
from tests.contract.inside import wait_until
from tests.contract.subject import EngineUnderTest, Machines

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")

_ACTS: dict[str, Callable[[EngineUnderTest], object]] = {
    "create": lambda subject: subject.engine.create(subject.spec()),
    "start": lambda subject: subject.engine.start(ALICE),
    "stop": lambda subject: subject.engine.stop(ALICE, 1),
    "delete": lambda subject: subject.engine.delete(ALICE),
    "dial": lambda subject: subject.engine.dial(ALICE, "ssh"),
    "logs": lambda subject: subject.engine.logs(ALICE),
}


def make(subject: EngineUnderTest, ref: EnvironmentRef = ALICE) -> NodeName:
    """Have an environment run; return its node."""
    subject.engine.create(subject.spec(str(ref)))
    subject.engine.start(ref)
    wait_until(lambda: "ready" in subject.engine.logs(ref), "the entrypoint wrote its first line")
    return subject.engine.observe(ref).node


def machines_of(subject: EngineUnderTest) -> Machines:
    assert subject.machines is not None
    return subject.machines


def test_each_environment_is_on_a_node_that_is_listed(subject: EngineUnderTest) -> None:
    node = make(subject)
    nodes = {one.name: one for one in subject.engine.nodes()}
    assert nodes[node].is_ready
    assert [one.node for one in subject.engine.observe_all()] == [node]
    assert (subject.engine.unreachable(), subject.engine.observe(ALICE).is_unknown) == ({}, False)


def test_a_node_that_answers_cannot_be_abandoned(subject: EngineUnderTest) -> None:
    """What runs there is known, and goes on."""
    node = make(subject)
    with pytest.raises(ConflictError) as refusal:
        subject.engine.abandon(node)
    assert refusal.value.code == "node.alive"
    assert subject.engine.observe(ALICE).running


def test_a_node_that_is_none_cannot_be_abandoned(subject: EngineUnderTest) -> None:
    with pytest.raises(NotFoundError) as refusal:
        subject.engine.abandon(NodeName("no-such-node"))
    assert refusal.value.code == "node.not-found"


def test_what_is_on_a_node_cut_off_is_unknown(several: EngineUnderTest) -> None:
    """Neither running nor ended, and it is listed all the same."""
    node = make(several)
    make(several, BOB)
    machines_of(several).cut(node)
    observed = several.engine.observe(ALICE)
    assert (observed.is_unknown, observed.running, observed.node, observed.exit_code) == (True, False, node, None)
    assert several.engine.unreachable()[ALICE] == node
    assert {one.ref for one in several.engine.observe_all()} == {ALICE, BOB}
    assert not next(one for one in several.engine.nodes() if one.name == node).is_ready
    assert several.engine.status(ALICE) is None


@pytest.mark.parametrize("act", _ACTS)
def test_nothing_can_be_done_to_an_unknown_environment(several: EngineUnderTest, act: str) -> None:
    """Each act is refused with the node's name; when the node returns, the same processes go on."""
    node = make(several)
    machines_of(several).cut(node)
    with pytest.raises(NodeError) as refusal:
        _ACTS[act](several)
    assert refusal.value.code == "node.unreachable"
    assert node in refusal.value.message
    machines_of(several).heal(node)
    assert several.engine.observe(ALICE).running
    assert several.engine.logs(ALICE).count("probe is ready") == 1


def test_an_abandoned_environment_starts_elsewhere_and_ends_where_it_was(several: EngineUnderTest) -> None:
    """The returning node ends the old one before anybody can see it."""
    node = make(several)
    machines_of(several).cut(node)
    several.engine.abandon(node)
    assert (several.engine.observe(ALICE), several.engine.unreachable()) == (None, {})
    elsewhere = make(several)
    assert elsewhere != node
    machines_of(several).heal(node)
    assert [(one.ref, one.node, one.running) for one in several.engine.observe_all()] == [(ALICE, elsewhere, True)]
