"""Bans: when they begin, how they grow, whom they spare."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.auth.proofs import Proofs
from gateway.auth.throttle import Limits, Throttle
from gateway.auth.throttle_store import SharedFile, Tally

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
    path = tmp_path / "throttle.jsonl"
    fail(Throttle(clock, LIMITS, memory=SharedFile(path)), 3)
    assert Throttle(clock, LIMITS, memory=SharedFile(path)).ban_left_seconds("192.0.2.1", "alice") == 10
    path.write_text("{broken")
    assert Throttle(clock, LIMITS, memory=SharedFile(path)).ban_left_seconds("192.0.2.1", "alice") == 0


@pytest.mark.attack("G4", "guesses spread over worker processes")
def test_several_processes_count_and_ban_as_one(tmp_path: Path, clock: Clock) -> None:
    """Three failures are three wherever they were; a success or a lifted ban holds for all."""
    one, other = (Throttle(clock, LIMITS, memory=SharedFile(tmp_path / "throttle.jsonl")) for _ in range(2))
    assert [*fail(one, 1), *fail(other, 1), *fail(one, 1)] == [0, 0, 10]
    assert other.ban_left_seconds("192.0.2.1", "alice") == one.ban_left_seconds("192.0.2.1", "alice") == 10
    assert other.lift("192.0.2.1")
    assert one.ban_left_seconds("192.0.2.1", "alice") == 0
    fail(one, 2)
    other.succeeded("192.0.2.1", "alice")
    assert fail(one, 2) == [0, 0]


def test_the_common_file_is_made_short_again_and_says_the_same(tmp_path: Path, clock: Clock) -> None:
    """Also to a process that did not look meanwhile, of a source that was forgotten meanwhile."""
    path = tmp_path / "throttle.jsonl"
    sleeper = Throttle(clock, LIMITS, memory=SharedFile(path))
    fail(sleeper, 2, user="carol")
    busy = Throttle(clock, LIMITS, memory=SharedFile(path))
    busy.succeeded("192.0.2.1", "carol")
    largest = 0
    while largest <= path.stat().st_size:
        largest = path.stat().st_size
        fail(busy, 50)
    assert largest > 1_000_000
    assert path.stat().st_size < largest / 100
    assert sleeper.ban_left_seconds("192.0.2.1", "alice") == busy.ban_left_seconds("192.0.2.1", "alice") > 0
    assert fail(sleeper, 1, user="carol") == [0]


def test_many_processes_lose_no_failure(tmp_path: Path) -> None:
    """Four processes of two hundred failures each: the sum is there."""
    path = tmp_path / "throttle.jsonl"
    script = (
        "import sys, pathlib; from gateway.auth.throttle_store import SharedFile; from gateway.auth.throttle import *\n"
        "limits = Limits(failures_per_user=9999, failures_per_address=9999)\n"
        "throttle = Throttle(lambda: 1000.0, limits, memory=SharedFile(pathlib.Path(sys.argv[1])))\n"
        "for _ in range(200): throttle.failed('192.0.2.1', 'alice')\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    _, entries = SharedFile(path).news()
    assert dict(entries)["192.0.2.1"] == Tally(failures=800, since=1000.0)


def test_a_damaged_line_costs_itself_alone(tmp_path: Path, clock: Clock) -> None:
    """A write cut short by a full disk."""
    path = tmp_path / "throttle.jsonl"
    fail(Throttle(clock, LIMITS, memory=SharedFile(path)), 3)
    with path.open("ab") as file:
        file.write(b'["192.0.2.9", 1, 2')
    throttle = Throttle(clock, LIMITS, memory=SharedFile(path))
    assert throttle.ban_left_seconds("192.0.2.1", "alice") == 10
    fail(throttle, 6, "192.0.2.3")
    assert Throttle(clock, LIMITS, memory=SharedFile(path)).ban_left_seconds("192.0.2.3", "alice") == 10


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


@pytest.mark.attack("G8", "failures of connections that were under way when the ban began")
def test_nothing_counts_during_a_ban(throttle: Throttle, clock: Clock) -> None:
    """Neither towards the user's next ban nor towards the address's; afterwards it begins at nought."""
    assert fail(throttle, 3)[-1] == 10
    assert fail(throttle, 50) == [0] * 50
    assert throttle.ban_left_seconds("192.0.2.1") == 0
    clock.now += 10
    assert fail(throttle, 2) == [0, 10]  # the address has had five


def test_who_has_proved_a_key_is_not_shut_out_with_the_guesser(throttle: Throttle) -> None:
    """At their address: they as ever, other names with one try; a name that is banned itself with none."""
    throttle.succeeded("192.0.2.1", "alice")
    fail(throttle, 3, user="bob")
    for name in ("root", "admin"):
        throttle.failed("192.0.2.1", name)
    assert throttle.ban_left_seconds("192.0.2.1") == 10
    tries = {name: throttle.verdict("192.0.2.1", name).tries for name in ("alice", "carol", "bob")}
    assert tries == {"alice": "all", "carol": "one", "bob": "none"}
    assert throttle.verdict("192.0.2.1").tries == "one"


def test_an_address_of_guessers_alone_is_shut_out(throttle: Throttle) -> None:
    """And so is a name that is banned there, whoever else has proved a key."""
    for number in range(5):
        throttle.failed("192.0.2.1", f"user{number}")
    assert throttle.verdict("192.0.2.1").tries == "none"
    throttle.succeeded("192.0.2.2", "alice")
    fail(throttle, 3, "192.0.2.2", "bob")
    assert throttle.verdict("192.0.2.2", "bob").tries == "none"
    assert throttle.verdict("192.0.2.2", "alice").tries == "all"


def test_proofs_outlive_a_restart_and_end_after_a_month(tmp_path: Path, clock: Clock) -> None:
    """They are written once an hour at most."""
    path = tmp_path / "proofs.jsonl"
    throttle = Throttle(clock, LIMITS, proofs=Proofs(clock, SharedFile(path)))
    for _ in range(100):
        throttle.succeeded("192.0.2.1", "alice")
    assert len(path.read_text().splitlines()) == 2
    again = Throttle(clock, LIMITS, proofs=Proofs(clock, SharedFile(path)))
    assert again.is_shared("192.0.2.1")
    clock.now += 31 * 86400
    assert not again.is_shared("192.0.2.1")


def test_bans_are_listed_with_what_they_are_for_and_lifted(throttle: Throttle) -> None:
    """One user's alone, or the address's with all of its users."""
    fail(throttle, 3)
    fail(throttle, 3, "::ffff:192.0.2.9", "bob's")
    listed = [(ban.address, ban.user, ban.left_seconds, ban.bans, ban.reason) for ban in throttle.bans()]
    assert listed == [
        ("192.0.2.1", "alice", 10, 1, "3 connections as 'alice' proved no key within 100 s"),
        ("192.0.2.9", "bob's", 10, 1, '3 connections as "bob\'s" proved no key within 100 s'),
    ]
    assert not throttle.lift("192.0.2.9", "alice")
    assert throttle.lift("192.0.2.9", "bob's")
    assert [ban.address for ban in throttle.bans()] == ["192.0.2.1"]
    assert throttle.lift("192.0.2.1")
    assert throttle.bans() == []
