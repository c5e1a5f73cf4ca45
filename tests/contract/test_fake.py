"""The fake engine's own promise: every step can fail or be the last one, as a test wishes."""

from collections.abc import Callable

import pytest

from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, Limits
from tests.fakes.engine import Crash, FakeDaemon, FakeEngine

ALICE = EnvironmentRef.parse("alice")
SPEC = EnvironmentSpec(ALICE, 1, 1, "img", Limits(1, 1, 1, 1), (), egress=Egress.INTERNET)
MAKING = ["create.network", "create.network/done", "create.container", "create.container/done"]
REMOVING = ["delete.container", "delete.container/done", "delete.network", "delete.network/done"]


@pytest.fixture
def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    daemon.add_image("img", {})
    return daemon


def at(step: str, error: BaseException) -> Callable[[str], None]:
    """Raise at one step, once."""
    left = [error]

    def hook(reached: str) -> None:
        if reached == step and left:
            raise left.pop()

    return hook


@pytest.mark.parametrize("step", MAKING)
def test_a_step_of_create_that_fails_leaves_nothing(daemon: FakeDaemon, step: str) -> None:
    engine = FakeEngine(daemon)
    daemon.at_step = at(step, EngineError("engine.failed", "as asked", ""))
    with pytest.raises(EngineError):
        engine.create(SPEC)
    assert engine.observe_all() == []
    assert not daemon.networks


@pytest.mark.parametrize("step", MAKING)
def test_a_crash_in_create_leaves_what_delete_clears(daemon: FakeDaemon, step: str) -> None:
    engine = FakeEngine(daemon)
    daemon.at_step = at(step, Crash())
    with pytest.raises(Crash):
        engine.create(SPEC)
    assert bool(engine.observe_all()) is (step != "create.network")
    engine.delete(ALICE)
    assert engine.observe_all() == []


@pytest.mark.parametrize("step", REMOVING)
def test_a_crash_in_delete_can_be_repaired_by_another(daemon: FakeDaemon, step: str) -> None:
    engine = FakeEngine(daemon)
    engine.create(SPEC)
    daemon.at_step = at(step, Crash())
    with pytest.raises(Crash):
        engine.delete(ALICE)
    engine.delete(ALICE)
    assert engine.observe_all() == []


def test_a_daemon_that_does_not_answer_says_so(daemon: FakeDaemon) -> None:
    daemon.is_reachable = False
    with pytest.raises(EngineError) as caught:
        FakeEngine(daemon).observe_all()
    assert caught.value.code == "engine.unreachable"
