"""The queue: who is served first, what is kept for whom, what a waiter is told, and how it is left."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from gateway.errors import QueuedError
from gateway.gpu_requests import parse_gpu_request
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.queue import Reservations
from gateway.gpus.waiting import Waiting, WaitingLine
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.queue import ALIVE_SECONDS, QueueTable
from gateway.store.shares import HALF_LIFE_HOURS, decayed_hours
from gateway.store.users import Users
from tests.unit.gpus.test_leases import Host, gpu
from tests.unit.gpus.test_leases_in_store import environment

ALICE, BOB, CAROL = (EnvironmentRef.parse(name) for name in ("alice", "bob", "carol"))
HOUR = timedelta(hours=1)


class Site:
    """Two GPUs, three users, a clock of the test's own."""

    def __init__(self, database: Database) -> None:
        self.now = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
        self.length_seconds: int | None = None
        for ref in (ALICE, BOB, CAROL):
            Users(database).ensure(ref.user, uid_start=20_000)
            EnvironmentTable(database).add(environment(ref))
        self.table, self.queue = LeaseTable(database), QueueTable(database)
        around = Surroundings(
            line=WaitingLine(self.queue, self.table), length_seconds=lambda _user: self.length_seconds
        )
        self.leases = Leases(self.table, Host(gpu(0), gpu(1)), lambda: self.now, around)
        self.pauses: list[Callable[[], object]] = []
        self.waiting = Waiting(self.queue, self.table, self.leases, self._pause, lambda: self.now)
        self.told: list[str] = []

    def wait(self, ref: EnvironmentRef, asked: str = "1") -> tuple[GpuUuid, ...]:
        """Wait as `devgw create` does; each pause lets the next thing of `pauses` happen."""
        return self.waiting.until_served(ref, asked, lambda: self.leases.lease(ref, asked), self.told.append)

    def pass_hours(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    def _pause(self, _seconds: float) -> None:
        self.now += timedelta(seconds=1)
        self.pauses.pop(0)()


@pytest.fixture
def site(database_url: str) -> Iterator[Site]:
    database = Database(database_url)
    yield Site(database)
    database.close()


def order(site: Site) -> list[EnvironmentRef]:
    return [waiter.ref for waiter in site.queue.waiting(site.now)]


def test_a_waiter_is_told_place_reason_and_estimate_and_gets_the_gpu(site: Site) -> None:
    """And stands in the line no longer."""
    site.length_seconds = 3 * 3600
    site.leases.lease(ALICE, "2")
    site.pauses = [lambda: site.leases.release(ALICE)]
    assert site.wait(BOB) == (gpu(0).uuid,)
    assert site.told == ["waiting, position 1 of 1: no free GPU (2 of 2 leased); about 3 h"]
    assert order(site) == []


def test_without_an_end_there_is_no_estimate(site: Site) -> None:
    """Leases last as long as environments run."""
    site.leases.lease(ALICE, "2")
    site.pauses = [lambda: site.leases.release(ALICE)]
    site.wait(BOB)
    assert site.told[0].endswith("nobody can tell how long")


def test_ctrl_c_leaves_the_line(site: Site) -> None:
    """Nothing of the waiter is left."""
    site.leases.lease(ALICE, "2")

    def interrupt() -> None:
        assert order(site) == [BOB]
        raise KeyboardInterrupt

    site.pauses = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        site.wait(BOB)
    assert order(site) == []


def test_who_had_less_lately_is_served_first(site: Site) -> None:
    """Bob asked first, and had a GPU for ten hours; carol had none."""
    site.leases.lease(BOB, "1")
    site.pass_hours(10)
    site.leases.release(BOB)
    site.leases.lease(ALICE, "2")
    site.queue.beat(BOB, "1", site.now)
    site.queue.beat(CAROL, "1", site.now + timedelta(seconds=1))
    assert order(site) == [CAROL, BOB]


def test_what_is_held_now_counts_as_well(site: Site) -> None:
    """Somebody who holds a GPU for a day comes after somebody who gave one back after an hour."""
    site.leases.lease(ALICE, "1")
    site.leases.lease(BOB, "1")
    site.pass_hours(1)
    site.leases.release(BOB)
    site.pass_hours(24)
    site.table.count_shares(site.now)
    shares = site.table.shares()
    assert decayed_hours(shares[ALICE.user], site.now) == pytest.approx(25, rel=0.06)
    assert decayed_hours(shares[BOB.user], site.now) == pytest.approx(1, rel=0.11)


def test_hours_halve_each_half_life_and_the_order_stays(site: Site) -> None:
    """Ten hours are five a week later; nothing has to be written for that."""
    site.leases.lease(ALICE, "1")
    site.pass_hours(10)
    site.leases.release(ALICE)
    share = site.table.shares()[ALICE.user]
    now = decayed_hours(share, site.now)
    assert now == pytest.approx(10, rel=0.03)
    assert decayed_hours(share, site.now + HALF_LIFE_HOURS * HOUR) == pytest.approx(now / 2)
    assert decayed_hours(share, site.now + 520 * HALF_LIFE_HOURS * HOUR) >= 0


def test_a_free_gpu_is_kept_for_who_waits_before(site: Site) -> None:
    """Also against somebody who does not wait at all; the refusal says so."""
    site.leases.lease(ALICE, "1")
    site.queue.beat(BOB, "1", site.now)
    with pytest.raises(QueuedError) as caught:
        site.leases.lease(CAROL, "1")
    assert caught.value.message == "no free GPU (1 of 2 leased, 1 kept for those who wait already)"
    assert site.leases.lease(BOB, "1") == (gpu(1).uuid,)


def test_a_large_request_is_not_overtaken_for_ever(site: Site) -> None:
    """Two GPUs are wanted and one is free: it is kept, so that bob gets both one day."""
    site.leases.lease(ALICE, "1")
    site.queue.beat(BOB, "2", site.now)
    site.queue.beat(CAROL, "1", site.now + timedelta(seconds=1))
    with pytest.raises(QueuedError):
        site.leases.lease(CAROL, "1")
    site.leases.release(ALICE)
    assert len(site.leases.lease(BOB, "2")) == 2


def test_a_waiter_that_died_blocks_nobody(site: Site) -> None:
    """No heartbeat for half a minute: whoever is next gets the GPU."""
    site.leases.lease(ALICE, "1")
    site.queue.beat(BOB, "1", site.now)
    site.now += timedelta(seconds=ALIVE_SECONDS)
    with pytest.raises(QueuedError):
        site.leases.lease(CAROL, "1")
    site.now += timedelta(seconds=1)
    assert site.leases.lease(CAROL, "1") == (gpu(1).uuid,)


def test_the_place_is_that_of_the_first_question(site: Site) -> None:
    """Heartbeats do not move anybody back."""
    site.queue.beat(BOB, "1", site.now)
    site.queue.beat(CAROL, "1", site.now + timedelta(seconds=1))
    site.queue.beat(BOB, "1", site.now + timedelta(seconds=2))
    assert order(site) == [BOB, CAROL]


@pytest.mark.parametrize(
    ("before", "asked", "room"),
    [
        ([], "1", True),
        (["1"], "1", True),
        (["1", "1"], "1", False),
        (["2"], "1", False),
        (["1g.10gb", "1g.10gb"], "2", True),
        (["a100", "a100", "a100"], "2", True),
        ([gpu(1).uuid], "2", False),
        ([gpu(7).uuid, "nonsense!"], "2", True),
    ],
)
def test_only_wishes_for_the_same_gpus_stand_in_the_way(before: list[str], asked: str, room: bool) -> None:
    """Two whole H200s and a slice are free."""
    free = [gpu(0), gpu(1), gpu(2, "NVIDIA A100 MIG 1g.10gb", "1g.10gb")]
    reservations = Reservations(free, parse_gpu_request(asked))
    for wish in before:
        reservations.keep(wish)
    assert reservations.has_room() is room
