"""Invariant 11 under random schedules: no GPU in two hands, none leaked, nothing lost that runs, ledger like labels.

Processes are killed at any step, steps fail, others act in the middle, containers die and the ledger is lost.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.removal import remove_tree
from tests.fakes.schedule import GPUS, REFS, Act, Host
from tests.support.databases import Databases

_KINDS = ["create", "create", "create", "start", "stop", "delete", "purge", "dies", "tidy", "restart", "forget"]
_WISHES = ["0", "1", "1", "1", "2", "3", GPUS[0].uuid]


def acts(meanwhile: st.SearchStrategy[Act] | None = None) -> st.SearchStrategy[Act]:
    """Return acts, of users of whom a few are frequent, so that they meet."""
    happens: st.SearchStrategy[str | Act] = st.sampled_from(["killed", "fails"])
    return st.builds(
        Act,
        kind=st.sampled_from(_KINDS),
        who=st.integers(0, 5) | st.integers(0, len(REFS) - 1),
        gpus=st.sampled_from(_WISHES),
        at=st.integers(-1, 40),
        happens=happens if meanwhile is None else happens | meanwhile,
    )


schedules = st.lists(acts(acts(acts())), min_size=5, max_size=40)


@pytest.fixture(autouse=True)
def ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments answer as soon as they are started; that waiting works is tested in test_lifecycle."""
    monkeypatch.setattr("gateway.environments.starting.wait_until_ready", lambda *_arguments: None)


def play(databases: Databases, schedule: list[Act]) -> None:
    """Play a schedule; at its end a new gateway settles everything, and after all is deleted nothing is left."""
    host = Host(databases)
    try:
        for act in schedule:
            host.run(act)
            host.require_one_hand()
        host.run(Act("restart", 0))
        host.require_settled()
        for environment in host.table.all():
            host.environments.delete(environment.ref, force=True)
        assert (host.daemon.containers, host.ledger.held()) == ({}, [])
        host.run(Act("create", 0, str(len(GPUS))))
        assert len(host.ledger.held()) == len(GPUS)
    finally:
        host.close()


_LIMITS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True, "database": None}


@settings(max_examples=60, **_LIMITS)
@given(schedule=schedules)
def test_no_schedule_loses_or_doubles_a_gpu(databases: Databases, schedule: list[Act]) -> None:
    """A short run, for every change."""
    play(databases, schedule)


@pytest.mark.slow
@settings(max_examples=1000, **_LIMITS)
@given(schedule=schedules)
def test_a_thousand_schedules_lose_or_double_no_gpu(sqlite_databases: Databases, schedule: list[Act]) -> None:
    """The same a thousand times, up to fifty users on eight GPUs; what differs between databases shows in few."""
    play(sqlite_databases, schedule)


_FIRST = {"create": [], "start": ["create", "stop"], "stop": ["create"], "delete": ["create"], "purge": ["create"]}


@pytest.mark.parametrize("kind", _FIRST)
@pytest.mark.parametrize("happens", ["killed", "fails"])
@pytest.mark.parametrize("healer", ["restart", "tidy"])
def test_an_end_at_any_step_leaves_nothing_behind(databases: Databases, kind: str, happens: str, healer: str) -> None:
    """Each operation is cut off at each of its steps, one after the other, until it gets through."""
    for host, at in _hosts(databases):
        for before in _FIRST[kind]:
            host.run(Act(before, 0))
        steps = host.run(Act(kind, 0, at=at, happens=happens))
        host.run(Act(healer, 0))
        host.require_settled()
        if steps <= at:
            assert at > 5
            return


@pytest.mark.attack("I18", "a purge killed at each of its steps: the files never come back to the next of that name")
@pytest.mark.parametrize("happens", ["killed", "fails"])
@pytest.mark.parametrize("healer", ["restart", "tidy", "delete", "stop", "start", "create"])
def test_a_purge_once_begun_is_finished(
    databases: Databases, healer: str, happens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off at any step, between removals of files too, and healed by whatever comes next."""
    for host, at in _hosts(databases):
        host.run(Act("create", 0))
        secret = host.root / "volumes" / "user0" / "main" / "home" / "secret"
        secret.write_text("left over")
        with monkeypatch.context() as patch:
            patch.setattr("gateway.environments.layout.remove_tree", _stepped_removal(host))
            steps = host.run(Act("purge", 0, at=at, happens=happens))
        was_begun = steps > 1 and (host.table.get(REFS[0]) is None or host.table.require(REFS[0]).purges)
        host.run(Act(healer, 0))
        host.run(Act("restart", 0))
        host.require_settled()
        host.run(Act("create", 0))
        assert secret.exists() == (not was_begun)
        if steps <= at:
            assert was_begun
            assert at > 8
            return


def _stepped_removal(host: Host) -> Callable[[Path], None]:
    def remove(place: Path) -> None:
        host.daemon.at_step("files")
        remove_tree(place)
        host.daemon.at_step("files/done")

    return remove


def _hosts(databases: Databases) -> Iterator[tuple[Host, int]]:
    for at in range(200):
        host = Host(databases)
        try:
            yield host, at
        finally:
            host.close()
    pytest.fail("the operation never got through")
