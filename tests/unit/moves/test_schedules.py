"""A move killed at each step of either side: the same command again finishes it, or `--abort` puts back."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from gateway.background.journal_maintenance import contradictions
from gateway.errors import DevgwError
from tests.fakes.engine import Crash
from tests.unit.moves.conftest import KEY
from tests.unit.moves.two_hosts import ALICE, MAIN, PROJ, TwoHosts

LEAST_STEPS = {"source": 45, "target": 15}
STRIDES = pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
"""A few of the steps for every change; each of them in the long run."""


def require_moved(hosts: TwoHosts) -> None:
    """She is on the target with all that is hers, and the source tells her so and keeps what it had."""
    source, target = hosts.source, hosts.target
    assert (source.is_open(), target.is_open()) == (False, True)
    assert source.app.users.require(ALICE).closed_because.startswith("you are on target.example.org now: ssh ")
    assert [one.fingerprint for one in target.app.users.keys(ALICE)] == [KEY.fingerprint]
    assert [one.ref for one in target.app.table.all(ALICE)] == [MAIN, PROJ]
    assert source.app.table.all(ALICE) == []
    assert target.home().joinpath("thesis.tex").read_text() == "chapter 1"
    assert target.home(PROJ).joinpath("data").read_text() == "1 2 3"
    (kept,) = (source.settings.state_dir / "moved").iterdir()
    assert (kept / "volumes/main/home/thesis.tex").read_text() == "chapter 1"
    assert not source.home().exists()
    assert {one.move for one in (source.app.users.require(ALICE), target.app.users.require(ALICE))} == {""}
    for host in (source, target):
        assert list(contradictions(host.app.users, host.settings.journal_dir)) == []
        codes = [record.code for record in host.records()]
        assert {"move.begun", "move.completed"} <= set(codes), codes
    started = target.app.administration.environments.start(MAIN)
    assert (started.gpu_request, started.limits.cpus) == ("0", 2.0)


def require_back(hosts: TwoHosts) -> None:
    """She is where she was, and the target has nothing of her."""
    source, target = hosts.source, hosts.target
    assert (source.is_open(), target.app.users.get(ALICE)) == (True, None)
    assert source.app.users.require(ALICE).move == ""
    assert target.app.table.all(ALICE) == []
    assert not (target.settings.state_dir / "volumes" / "alice").exists()
    assert not (target.settings.state_dir / "environments" / "alice").exists()
    assert source.home().joinpath("thesis.tex").read_text() == "chapter 1"
    assert source.runs()


@STRIDES
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_move_killed_at_any_step_is_finished_by_the_same_command(
    make_hosts: Callable[[], TwoHosts], side: str, stride: int
) -> None:
    """Its steps, one after the other, until it gets through."""
    for at in range(0, 400, stride):
        hosts = make_hosts()
        with hosts.killed(at, side) as steps, suppress(Crash, DevgwError):
            hosts.move()
        taken = next(steps)
        getattr(hosts, side).revive()
        hosts.source.revive()
        if hosts.source.app.users.require(ALICE).move or not hosts.source.app.users.require(ALICE).closed_because:
            hosts.move()
        require_moved(hosts)
        if taken <= at:
            assert at > LEAST_STEPS[side], "there are more steps than that"
            return
    raise AssertionError("it never gets through")


@STRIDES
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_move_killed_at_any_step_is_put_back_or_too_late(
    make_hosts: Callable[[], TwoHosts], side: str, stride: int
) -> None:
    """Once the target has opened its door, `--abort` says so, and the same command again finishes it."""
    outcomes = set()
    for at in range(0, 400, stride):
        hosts = make_hosts()
        with hosts.killed(at, side) as steps, suppress(Crash, DevgwError):
            hosts.move()
        taken = next(steps)
        getattr(hosts, side).revive()
        hosts.source.revive()
        if taken <= at:
            require_moved(hosts)
            assert outcomes == {"back", "too late"}
            return
        outcomes.add(_put_back(hosts))
    raise AssertionError("it never gets through")


def _put_back(hosts: TwoHosts) -> str:
    if not hosts.source.app.users.require(ALICE).move:
        if hosts.source.app.users.require(ALICE).closed_because:
            require_moved(hosts)
            return "too late"
        require_back(hosts)
        return "back"
    try:
        hosts.abort()
    except DevgwError as exc:
        refusal = exc
    else:
        require_back(hosts)
        return "back"
    assert refusal.exit_code == 6, refusal
    hosts.move()
    require_moved(hosts)
    return "too late"


@STRIDES
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("until", ["begin/done", "copy/done", "activate"])
def test_an_abort_killed_at_any_step_is_finished_by_the_same_command(
    make_hosts: Callable[[], TwoHosts], side: str, until: str, stride: int
) -> None:
    """Begun after the name was kept, in the first copies, and just before the door would open there."""
    for at in range(0, 200, stride):
        hosts = make_hosts()
        _move_until(hosts, until)
        with hosts.killed(at, side) as steps, suppress(Crash, DevgwError):
            hosts.abort()
        taken = next(steps)
        getattr(hosts, side).revive()
        hosts.source.revive()
        if hosts.source.app.users.require(ALICE).move:
            hosts.abort()
        require_back(hosts)
        if taken <= at:
            assert at > 3
            return
    raise AssertionError("it never gets through")


def _move_until(hosts: TwoHosts, step: str) -> None:
    def on_step(now: str) -> None:
        if now == step:
            raise Crash

    hosts.source.at_step = on_step
    with suppress(Crash):
        hosts.move()
    hosts.source.at_step = lambda _step: None
    hosts.source.revive()
