"""Failed logins that several gateways count in one database."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from gateway.auth.proofs import KEEP_SECONDS, Proofs
from gateway.auth.shared_tallies import SharedTallies
from gateway.auth.throttle import Limits, Throttle
from gateway.errors import StoreError
from gateway.store.database import Database
from gateway.store.login_tallies import LoginTallyTable

ADDRESS = "192.0.2.7"


@dataclass
class Gateway:
    """One that serves: it exchanges when a test says so."""

    database: Database
    now: list[float]
    limits: Limits = field(default_factory=lambda: Limits(failures_per_user=4, failures_per_address=1000))

    def __post_init__(self) -> None:
        self.table = Away(self.database, "throttle")
        self.memory = SharedTallies(self.table, self.clock, keep_seconds=1000)
        self.memory._is_served = True  # as `run` does; what is exchanged when is the test's
        self.throttle = Throttle(self.clock, self.limits, memory=self.memory)

    def clock(self) -> float:
        return self.now[0]

    def fail(self, times: int, address: str = ADDRESS) -> float:
        return max(self.throttle.failed(address, "alice") for _ in range(times))

    def is_banned(self) -> bool:
        return self.throttle.ban_left_seconds(ADDRESS, "alice") > 0


class Away(LoginTallyTable):
    """A table whose database can be away."""

    is_away = False

    def add(self, *arguments: object) -> None:
        if self.is_away:
            raise StoreError("store.unusable", "away", "")
        super().add(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def now() -> list[float]:
    return [1_000_000.0]


@pytest.fixture
def made(database_url: str, now: list[float]) -> Iterator[Callable[[], Gateway]]:
    database = Database(database_url)
    yield lambda: Gateway(database, now)
    database.close()


def exchange(*gateways: Gateway) -> None:
    for gateway in (*gateways, *gateways):
        gateway.memory.exchange()


def test_what_each_counts_adds_up(made: Callable[[], Gateway]) -> None:
    """Also where both counted before either knew of the other."""
    one, other = made(), made()
    assert one.fail(1) == other.fail(2) == 0
    exchange(one, other)
    assert one.fail(1) == 60
    assert not other.is_banned()
    exchange(one, other)
    assert other.is_banned()
    assert one.throttle.bans(ADDRESS, "alice") == other.throttle.bans(ADDRESS, "alice")


def test_a_ban_is_never_made_shorter_by_what_another_counted(made: Callable[[], Gateway]) -> None:
    """The other one counts a failure, and forgets all, while it does not know."""
    one, other = made(), made()
    one.fail(4)
    other.fail(1)
    one.memory.exchange()
    exchange(other)
    assert one.is_banned()
    assert other.is_banned()


def test_what_a_key_or_an_administrator_forgives_is_forgiven_everywhere(made: Callable[[], Gateway]) -> None:
    """A proved key forgets its user's failures; `bans lift` an address's."""
    one, other = made(), made()
    one.fail(3)
    exchange(one, other)
    other.throttle.succeeded(ADDRESS, "alice")
    exchange(other, one)
    assert one.fail(3) == 0
    assert one.fail(1) == 60
    exchange(one, other)
    assert other.throttle.lift(ADDRESS)
    exchange(other, one)
    assert not one.is_banned()


def test_nothing_is_lost_while_the_database_is_away(made: Callable[[], Gateway]) -> None:
    """Each goes on alone meanwhile; what both counted is joined afterwards."""
    one, other = made(), made()
    one.table.is_away = True
    one.fail(1)
    with pytest.raises(StoreError):
        one.memory.exchange()
    one.fail(1)
    other.fail(1)
    one.table.is_away = False
    exchange(one, other)
    assert other.fail(1) == 60


def test_a_gateway_that_starts_knows_what_was_counted(made: Callable[[], Gateway]) -> None:
    """And so does a command, which exchanges by itself."""
    one = made()
    one.fail(4)
    one.memory.exchange()
    later = made()
    later.memory.exchange()
    assert later.is_banned()
    command = SharedTallies(LoginTallyTable(one.database, "throttle"), one.clock, 1000)
    throttle = Throttle(one.clock, one.limits, memory=command)
    assert throttle.lift(ADDRESS)
    one.memory.exchange()
    assert not one.is_banned()


def test_a_new_window_begins_anew_for_all(made: Callable[[], Gateway], now: list[float]) -> None:
    """Failures of long ago do not add up with today's."""
    one, other = made(), made()
    one.fail(3)
    exchange(one, other)
    now[0] += one.limits.window_seconds + 1
    other.fail(1)
    exchange(other, one)
    assert one.fail(2) == 0
    assert one.fail(1) == 60


def test_what_is_old_or_too_much_is_dropped(made: Callable[[], Gateway], now: list[float]) -> None:
    """The newest stay."""
    one = made()
    for number in range(6):
        one.fail(1, f"198.51.100.{number}")
        now[0] += 1
        one.memory.exchange()
    one.table.forget(before=now[0] - 4, keep=100)
    kept = {source.split(" ")[0] for source, _row in one.table.since(0)[1]}
    assert kept == {f"198.51.100.{number}" for number in range(1, 6)}
    one.table.forget(before=0, keep=4)
    kept = {source.split(" ")[0] for source, _row in one.table.since(0)[1]}
    assert kept == {"198.51.100.4", "198.51.100.5"}


def test_who_proved_a_key_at_one_is_known_at_the_other(made: Callable[[], Gateway]) -> None:
    """Proofs and failures are of two kinds, and do not mix."""
    one = made()
    memories = [SharedTallies(LoginTallyTable(one.database, "proofs"), one.clock, KEEP_SECONDS) for _ in range(2)]
    here, there = (Proofs(one.clock, memory) for memory in memories)
    here.note(ADDRESS, f"{ADDRESS} 'alice'")
    assert there.has(ADDRESS)
    assert there.has(f"{ADDRESS} 'alice'")
    one.memory.exchange()
    assert not one.throttle.bans()


def test_a_gateway_that_serves_exchanges_by_itself(made: Callable[[], Gateway]) -> None:
    """Twice a second, and never in the way of a login."""
    one, other = made(), made()

    async def serve() -> None:
        tasks = [asyncio.create_task(gateway.memory.run()) for gateway in (one, other)]
        one.fail(4)
        async with asyncio.timeout(30):
            while not other.is_banned():  # noqa: ASYNC110 - no event: the other's view is what is looked at
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()

    asyncio.run(serve())
