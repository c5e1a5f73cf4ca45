"""Bans: when they begin, how they grow, whom they spare."""

from pathlib import Path

import pytest

from gateway.auth.throttle import FileMemory, Limits, Throttle

LIMITS = Limits(
    failures_per_user=3, failures_per_address=5, window_seconds=100, ban_seconds=10, growth=2, cap_seconds=35
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock, LIMITS, exempt=["10.0.0.0/8", "fd00::/8"])


def fail(throttle: Throttle, times: int, address: str = "192.0.2.1", user: str = "alice") -> list[float]:
    return [throttle.failed(address, user) for _ in range(times)]


@pytest.mark.attack("G1", "a shared address keeps working for others")
def test_a_user_name_is_banned_at_one_address_only(throttle: Throttle) -> None:
    """A shared address keeps working for others, and the user elsewhere."""
    assert fail(throttle, 3) == [0, 0, 10]
    assert throttle.ban_left_seconds("192.0.2.1", "alice") == 10
    assert throttle.ban_left_seconds("192.0.2.1", "bob") == 0
    assert throttle.ban_left_seconds("192.0.2.1") == 0
    assert throttle.ban_left_seconds("192.0.2.2", "alice") == 0


@pytest.mark.attack("G1", "many names from one address")
def test_an_address_that_tries_many_names_is_banned(throttle: Throttle) -> None:
    """Guessing names counts for the address."""
    assert [throttle.failed("192.0.2.1", f"user{number}") for number in range(5)][-1] == 10
    assert throttle.ban_left_seconds("192.0.2.1") == 10
    assert throttle.ban_left_seconds("192.0.2.1", "never-tried") == 10


def test_bans_grow_to_a_cap_and_end(throttle: Throttle, clock: Clock) -> None:
    """10, 20, then 35 seconds and no longer."""
    lengths = []
    for _ in range(4):
        lengths.append(max(throttle.failed("192.0.2.1", "alice") for _ in range(3)))
        assert throttle.ban_left_seconds("192.0.2.1", "alice") == lengths[-1]
        clock.now += lengths[-1]
        assert throttle.ban_left_seconds("192.0.2.1", "alice") == 0
        clock.now += LIMITS.window_seconds + 1
    assert lengths == [10, 20, 35, 35]


def test_old_failures_are_forgotten(throttle: Throttle, clock: Clock) -> None:
    """Failures count within a window."""
    fail(throttle, 2)
    clock.now += LIMITS.window_seconds + 1
    assert fail(throttle, 2) == [0, 0]


@pytest.mark.attack("G3", "a success in between: resets the user, not the address")
def test_success_resets_the_user_but_not_the_address(throttle: Throttle) -> None:
    """Else one good key would let an address guess without end."""
    fail(throttle, 2)
    throttle.succeeded("192.0.2.1", "alice")
    assert fail(throttle, 2) == [0, 0]
    assert throttle.failed("192.0.2.1", "bob") == 10


@pytest.mark.attack("G2", "exempt networks, also as mapped addresses")
@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_exempt_networks_are_never_banned(throttle: Throttle, address: str) -> None:
    """An IPv4 address mapped into IPv6 is the same address."""
    assert fail(throttle, 50, address) == [0] * 50


@pytest.mark.attack("G4", "a restart in the middle of a ban")
def test_a_ban_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    """And a damaged file does not keep the gateway from starting."""
    path = tmp_path / "throttle.json"
    fail(Throttle(clock, LIMITS, memory=FileMemory(path)), 3)
    assert Throttle(clock, LIMITS, memory=FileMemory(path)).ban_left_seconds("192.0.2.1", "alice") == 10
    path.write_text("{broken")
    assert Throttle(clock, LIMITS, memory=FileMemory(path)).ban_left_seconds("192.0.2.1", "alice") == 0


@pytest.mark.attack("G5", "a flood of sources")
def test_memory_is_bounded(clock: Clock) -> None:
    """A flood of sources forgets the oldest, not the newest."""
    throttle = Throttle(clock, Limits(failures_per_user=1, failures_per_address=1, entries_max=100))
    for number in range(500):
        throttle.failed(f"2001:db8::{number:x}", "x")
    assert len(throttle._tallies) <= 101
    assert throttle.ban_left_seconds("2001:db8::1f3") > 0


def test_an_administrator_lifts_a_ban(throttle: Throttle) -> None:
    """The address and all users from it."""
    fail(throttle, 5)
    assert throttle.lift("192.0.2.1")
    assert throttle.ban_left_seconds("192.0.2.1", "alice") == 0
    assert not throttle.lift("192.0.2.1")
