"""One environment that fails, of whatever, costs no other its turn; it is tried again, ever more rarely, and shown."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.engines.bubblewrap.engine import BubblewrapEngine
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.environments.reconcile import Reconciler
from gateway.environments.troubles import Troubles
from gateway.errors import StoreError
from gateway.model import EnvironmentRef, EnvironmentState
from policies.limits import Allowance
from tests.unit.environments.test_lifecycle import ALICE, BOB, Site
from tests.unit.environments.test_rounds import Watched

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
FAILURES = [
    RecursionError("maximum recursion depth exceeded"),
    StoreError("store.unusable", "no", ""),
    OSError(5, "EIO"),
]


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    yield made
    made.engine.close()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def unfinished(site: Site) -> None:
    """Have two environments whose deletion was begun and cut off."""
    for ref in (ALICE, BOB):
        site.create(ref)
        site.environments.stop(ref)
        site.table.begin_delete(ref, purge=True)


@pytest.mark.attack("I19", "an environment on which housekeeping fails in any way: the others get their turn")
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("entry", ["run", "tidy"])
def test_the_others_are_settled(site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, entry: str) -> None:
    """The failure is journaled, and kept with the environment until it is over."""
    unfinished(site)
    clock = Clock()
    reconciler = Reconciler(site.table, site.leases, site.engine, site.environments, clock)
    clear = site.environments.clear_remains

    def failing(ref: EnvironmentRef) -> None:
        if ref == ALICE:
            raise error
        clear(ref)

    monkeypatch.setattr(site.environments, "clear_remains", failing)
    found = {finding.ref: finding for finding in getattr(reconciler, entry)()}
    assert {ref: finding.code for ref, finding in found.items()} == {
        ALICE: "environment.failed",
        BOB: "environment.deleted",
    }
    assert [one.ref for one in site.table.all()] == [ALICE]
    assert site.table.require(ALICE).trouble.startswith("settling it failed: ")
    assert site.table.require(ALICE).state is EnvironmentState.DELETING
    monkeypatch.setattr(site.environments, "clear_remains", clear)
    assert list(reconciler.tidy()) == []
    clock.now += timedelta(minutes=1)
    assert [finding.code for finding in reconciler.tidy()] == ["environment.deleted"]
    assert not (site.root / "volumes" / "alice").exists()


def test_waits_grow_and_end(site: Site) -> None:
    """One minute, two, four, … thirty; one success and all is forgotten."""
    site.create()
    clock = Clock()
    troubles = Troubles(site.table, "settling it", clock)
    waits = []
    for _ in range(8):
        troubles.note(ALICE, ValueError("odd\x1b[31m\nname"))
        begun = clock.now
        while not troubles.is_due(ALICE):
            clock.now += timedelta(minutes=1)
        waits.append((clock.now - begun).seconds // 60)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert site.table.require(ALICE).trouble == "settling it failed: ValueError: odd [31m name"
    assert "(9 times; again in 30 min)" in troubles.note(ALICE, ValueError("x")).detail
    troubles.end(site.table.require(ALICE))
    assert site.table.require(ALICE).trouble == ""
    assert "once; again in 1 min" in troubles.note(ALICE, ValueError("x")).detail


def test_one_kind_of_care_does_not_forget_what_another_failed_at(site: Site) -> None:
    """A round that went well says nothing of a deletion that did not."""
    site.create()
    Troubles(site.table, "settling it").note(ALICE, ValueError("x"))
    Troubles(site.table, "looking after it").end(site.table.require(ALICE))
    assert site.table.require(ALICE).trouble == "settling it failed: ValueError: x"


def test_a_success_ends_the_trouble_of_an_earlier_gateway(site: Site) -> None:
    """What is shown is what is so now."""
    site.create()
    Troubles(site.table, "settling it").note(ALICE, ValueError("x"))
    site.revive()
    site.reconcile()
    assert site.table.require(ALICE).trouble == ""


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_round_goes_on_to_the_next_environment(site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Bob's lease ends in time whatever Alice wrote."""
    alice = Watched(site, Allowance())
    site.users.ensure("bob", uid_start=200000)
    site.table.add(replace(site.table.require(ALICE), ref=BOB, state=EnvironmentState.RUNNING, gpus=()))
    visited = []

    def failing(ref: EnvironmentRef, _now: datetime) -> None:
        visited.append(ref)
        if ref == ALICE:
            raise error

    monkeypatch.setattr(site.environments, "status", failing)
    assert [(finding.code, finding.ref) for finding in alice.go()] == [("environment.failed", ALICE)]
    assert visited == [ALICE, BOB]
    assert site.table.require(ALICE).trouble.startswith("looking after it failed: ")
    assert alice.go() == []
    assert visited == [ALICE, BOB, BOB]
    alice.go(timedelta(minutes=1))
    assert visited == [ALICE, BOB, BOB, ALICE, BOB]


def test_a_damaged_record_hides_no_other(tmp_path: Path) -> None:
    """Bubblewrap's engine keeps a file for each; one that is not JSON is one environment's trouble."""
    for name, text in (("alice.main", "{"), ("bob.main", None), ("carol.main", '{"spec": {}}')):
        place = tmp_path / "environments" / name
        place.mkdir(parents=True)
        if text is not None:
            (place / "spec.json").write_text(text)
    engine = BubblewrapEngine(tmp_path, "id", PreparedRoots(tmp_path / "roots"))
    seen = {str(one.ref): one for one in engine.observe_all()}
    assert set(seen) == {"alice", "bob", "carol"}
    assert all(one.partial and not one.running for one in seen.values())
    assert "cannot be read" in seen["alice"].detail
