"""What one user, and everybody who is nobody yet, may write into the journal; and that what is counted is said."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.event_budget import EventBudget
from gateway.audit.events import source_banned
from gateway.audit.journal import Journal
from gateway.audit.read import Filter, stream
from gateway.audit.segments import segments
from gateway.model import Actor
from tests.unit.audit.conftest import ALICE, MakeEvent

RATE = 64 << 10


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(journal: Journal, clock: Clock) -> Iterator[EventBudget]:
    made = EventBudget(journal, RATE, clock=clock, count_seconds=3600)
    yield made
    made.flush()


def refused(name: str, address: str) -> Event:
    """Make the largest refusal that a stranger can cause: six keys, a name of escapes."""
    keys = " ".join(["SHA256:" + "k" * 43] * 6)
    detail: dict[str, str | int | float | bool | None] = {"user": name[:64], "offered_keys": keys}
    actor = Actor("user", name[:64], "", address)
    return Event("login.refused", actor, decision="denied", reason="no key of this user was offered", detail=detail)


def size_of(directory: Path) -> int:
    return sum(segment.path.stat().st_size for segment in segments(directory))


def counted(directory: Path, action: str) -> int:
    """Sum up how many events the records of a code stand for."""
    return sum(int(record.detail.get("count") or 1) for record in stream(directory, Filter(action=action)))


@pytest.mark.attack("H5", "refused logins without end, from as many addresses as there are")
@pytest.mark.parametrize("addresses", [1, 300, 60_000])
@pytest.mark.parametrize("name", ["root", "\U0001f980" * 64, "x"], ids=["plain", "escapes", "other names"])
def test_a_flood_of_strangers_fills_less_than_a_megabyte_a_minute(
    directory: Path, journal: Journal, budget: EventBudget, clock: Clock, addresses: int, name: str
) -> None:
    """And every one of them is in a record, alone or counted."""
    for second in range(60):
        for number in range(250):
            place = (second * 250 + number) % addresses
            who = f"{name}{number}" if name == "x" else name
            budget.submit(refused(who, f"10.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}"))
        clock.now += 1
        if second % 15 == 14:
            budget.flush()
    journal.close()
    assert size_of(directory) < 1_000_000
    assert counted(directory, "login.refused") == 60 * 250


@pytest.mark.attack("H5", "a burst of refused logins: 1,500 addresses in ten seconds")
def test_a_burst_of_many_addresses_is_counted_with_their_number(
    directory: Path, journal: Journal, budget: EventBudget
) -> None:
    for number in range(1500):
        budget.submit(refused("root", f"10.0.{number >> 8}.{number & 255}"))
    budget.flush()
    journal.close()
    assert size_of(directory) < 250_000
    assert counted(directory, "login.refused") == 1500
    last = [record for record in stream(directory) if "addresses" in record.detail][-1]
    assert last.detail["addresses"] == last.detail["count"]


@pytest.mark.attack("H5", "bans without end, of as many addresses as there are")
def test_bans_of_many_addresses_are_counted_too(directory: Path, journal: Journal, budget: EventBudget) -> None:
    """The gateway says them, but strangers cause them; the ban of one noisy address is told by itself."""
    for _ in range(100):
        budget.submit(refused("root", "192.0.2.9"))
    for number in range(3000):
        budget.submit(source_banned(f"10.0.{number >> 8}.{number & 255}", None, 60.0, 1, "too many failed logins"))
    budget.flush()
    journal.close()
    first = next(stream(directory, Filter(action="source.banned")))
    assert "count" not in first.detail
    assert size_of(directory) < 300_000
    assert counted(directory, "source.banned") == 3000


def test_what_an_address_is_refused_now_and_then_is_written_one_by_one(
    directory: Path, journal: Journal, budget: EventBudget, clock: Clock
) -> None:
    for _ in range(50):
        budget.submit(refused("root", "192.0.2.9"))
        clock.now += 10
    journal.close()
    records = list(stream(directory, Filter(action="login.refused")))
    assert len(records) == 50
    assert all("count" not in record.detail for record in records)


@pytest.mark.attack("H5", "one address floods: another's refusal is still written")
def test_one_noisy_address_does_not_use_up_what_others_have(
    directory: Path, journal: Journal, budget: EventBudget
) -> None:
    for _ in range(10_000):
        budget.submit(refused("root", "203.0.113.1"))
    budget.submit(refused("carol", "192.0.2.9"))
    journal.close()
    (record,) = list(stream(directory, Filter(user="carol")))
    assert "count" not in record.detail


def test_a_user_who_fills_the_journal_is_asked_to_wait_and_nobody_else(
    journal: Journal, budget: EventBudget, clock: Clock, event: MakeEvent
) -> None:
    """The burst is half a minute's worth; then the debt is paid off at the rate."""
    bob = Actor("user", "bob", "SHA256:" + "b" * 43, "192.0.2.8")
    written = 0
    while budget.debt_seconds(ALICE) == 0:
        budget.submit(event(detail={"path": "p" * 1000}))
        written += 1
    assert 32 * RATE / 1600 < written < 32 * RATE / 1300
    budget.charge(ALICE, 10 * RATE)
    assert 10 <= budget.debt_seconds(ALICE) < 11
    assert budget.debt_seconds(bob) == 0
    clock.now += 11
    assert budget.debt_seconds(ALICE) == 0
    budget.charge(ALICE, RATE)
    budget.charge(ALICE, -RATE)
    assert budget.debt_seconds(ALICE) == 0
    assert journal is not None


@pytest.mark.attack("H5", "refusals that no channel waits for, by a logged-in user")
def test_refusals_of_a_user_in_debt_are_counted_and_all_else_is_written(
    directory: Path, journal: Journal, budget: EventBudget, event: MakeEvent
) -> None:
    budget.charge(ALICE, 64 * RATE)
    for _ in range(500):
        budget.submit(event("channel.refused", decision="denied", rule="gateway", reason="no such thing"))
        budget.submit(event("session.closed", decision=""))
    budget.flush()
    journal.close()
    refusals = list(stream(directory, Filter(action="channel.refused")))
    assert [record.detail["count"] for record in refusals] == [500]
    assert refusals[0].actor["name"] == "alice"
    assert counted(directory, "session.closed") == 500


def test_what_is_counted_is_told_by_itself_after_a_while(directory: Path, journal: Journal) -> None:
    """No further event is needed, and no call."""
    budget = EventBudget(journal, RATE, count_seconds=0.05)
    for _ in range(200):
        last = budget.submit(refused("root", "203.0.113.1"))
    assert last.done()
    journal.append(Event("gateway.started", Actor("gateway", "devgw")))  # the directory is made with the first record
    deadline = datetime.now(UTC).timestamp() + 60
    while counted(directory, "login.refused") < 200:
        assert datetime.now(UTC).timestamp() < deadline
        journal.append(Event("gateway.started", Actor("gateway", "devgw")))


def test_an_administrator_and_the_gateway_are_never_held_up(budget: EventBudget, journal: Journal) -> None:
    for actor in (Actor("admin", "root"), Actor("gateway", "devgw")):
        budget.charge(actor, 10**9)
        assert budget.debt_seconds(actor) == 0
    assert journal is not None


def test_on_a_full_disk_refusals_are_counted_and_told_when_there_is_room(
    journal: Journal, directory: Path, clock: Clock
) -> None:
    """The room that is left is for what ends; the timer counts on meanwhile, and one record says how many."""
    budget = EventBudget(journal, RATE, clock=clock, count_seconds=0.05)
    journal.append(Event("forward.allowed", ALICE))
    journal.is_short = True
    for _ in range(20):
        budget.submit(Event("login.refused", Actor("unknown", "eve", "", "192.0.2.9"), reason="no key")).result(10)
    ticks, deadline = set(), time.monotonic() + 10
    while len(ticks) < 3:
        assert time.monotonic() < deadline
        ticks.add(id(budget._timer) if budget._timer else 0)
        assert list(stream(directory, Filter(action="login.refused"))) == []
        time.sleep(0.01)
    journal.is_short = False
    while not (told := list(stream(directory, Filter(action="login.refused")))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [record.detail["count"] for record in told] == [20]
