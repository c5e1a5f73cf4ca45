"""Refused is not attacked: only a connection in which no key was proved counts towards a ban."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.auth.throttle import Limits
from gateway.errors import JournalError, StoreError
from gateway.model import PublicKey, User, UserName
from policies.limits import Allowance
from policies.requests import Decision, LoginRequest, Request
from tests.attacks.intruder import LoginRequest as SshLoginRequest
from tests.attacks.intruder import intrude, key_pair, probe, signed
from tests.support.ssh_clients import poll
from tests.support.ssh_gateway import TestGateway, lab_policy

HERE = "127.0.0.1"
LIMITS = Limits(failures_per_user=3, failures_per_address=6, ban_seconds=300)


class FewConnections:
    """Access of a policy that permits four connections."""

    def allowance(self, _user: UserName) -> Allowance:
        return Allowance(connections=4)

    def trusts(self, _ca_fingerprint: str) -> bool:
        return False


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[TestGateway]:
    made = TestGateway(tmp_path, throttle_limits=LIMITS, access=FewConnections())
    made.start()
    try:
        yield made
    finally:
        made.stop()


def said(gateway: TestGateway, handle: str, key: Path, *command: str, address: str = HERE) -> tuple[int, bytes]:
    """Run a command from one of this host's addresses; return its exit code and all that was said."""
    done = gateway.run(handle, key, *(command or ("true",)), before=["-b", address])
    return done.returncode, done.stdout + done.stderr


def together(
    gateway: TestGateway, logins: Sequence[tuple[str, Path]], command: str, address: str = HERE
) -> list[tuple[int, bytes]]:
    """Log in with all at once, each from a process of its own."""
    with ThreadPoolExecutor(len(logins)) as pool:
        running = [pool.submit(said, gateway, *login, command, address=address) for login in logins]
        return [one.result() for one in running]


def counted(gateway: TestGateway, user: str, address: str = HERE) -> int:
    """Return how many failures are remembered of a user."""
    tally = gateway.throttle._tallies.get(f"{address} {user!r}")
    return tally.failures if tally else 0


@pytest.mark.attack("G6", "a valid key, one connection too many, again and again: refused, never banned")
def test_a_full_house_bans_nobody(gateway: TestGateway) -> None:
    """Ansible with more forks than a user may have connections: the others are refused with the reason, that is all."""
    alice = gateway.add_user("alice")
    outcomes = together(gateway, [("alice", alice)] * 16, "sleep 4; echo in")
    assert [text for code, text in outcomes if code == 0] == [b"in\n"] * 4
    refused = [text for code, text in outcomes if code]
    assert len(refused) == 12
    assert all(b"too many connections open (4 are permitted)" in text for text in refused)
    assert counted(gateway, "alice") == 0
    assert said(gateway, "alice", alice)[0] == 0


def closed_at_night(request: Request) -> Decision:
    if isinstance(request, LoginRequest):
        return Decision(False, "lab.hours", "the laboratory is closed at night")
    return lab_policy(request)


def break_policy(gateway: TestGateway) -> None:
    gateway.policy = closed_at_night


def move_away(gateway: TestGateway) -> None:
    moved = replace(gateway.directory.users["alice"], closed_because="you are on gpu2 now: ssh -p 2222 alice@gpu2")
    gateway.directory.users["alice"] = moved


def disable(gateway: TestGateway) -> None:
    users = gateway.directory.users
    users["alice"] = replace(users["alice"], disabled=True)


def break_database(gateway: TestGateway) -> None:
    def account(_name: UserName) -> tuple[User | None, Sequence[PublicKey]]:
        raise StoreError("store.unusable", "disk I/O error", "see the log")

    gateway.directory.account = account  # type: ignore[method-assign]


def break_journal(gateway: TestGateway) -> None:
    submit = gateway.recorder.submit

    def fails(event: object) -> object:
        if getattr(event, "code", "").startswith("login.allowed"):
            raise JournalError("journal.unwritable", "no space left on device", "make room")
        return submit(event)  # type: ignore[arg-type]

    gateway.recorder.submit = fails  # type: ignore[method-assign, assignment]


@pytest.mark.attack("G6", "hours, a disabled user, a broken database, a full disk: a valid key is never banned")
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (break_policy, b"closed at night"),
        (disable, b"the user is disabled"),
        (move_away, b"you are on gpu2 now: ssh -p 2222 alice@gpu2"),
        (break_database, b"the gateway cannot decide logins at the moment"),
        (break_journal, b"no space left on device"),
    ],
)
def test_what_is_no_guess_bans_nobody(gateway: TestGateway, fault: object, told: bytes) -> None:
    """Each says why; when it is over, the user is in at once."""
    alice = gateway.add_user("alice")
    account, submit, user = gateway.directory.account, gateway.recorder.submit, gateway.directory.users["alice"]
    fault(gateway)  # type: ignore[operator]
    for _ in range(LIMITS.failures_per_user + 1):
        code, text = said(gateway, "alice", alice)
        assert code == 255
        assert told in text
    gateway.directory.account, gateway.recorder.submit = account, submit  # type: ignore[method-assign]
    gateway.policy, gateway.directory.users["alice"] = lab_policy, user
    assert counted(gateway, "alice") == 0
    assert said(gateway, "alice", alice) == (0, b"")


@pytest.mark.attack("G7", "guesses: keys that are refused, a signature by another, other methods, impossible names")
def test_what_is_a_guess_counts_once_for_each_connection(gateway: TestGateway) -> None:
    """One that offers nothing, or a right key without signing for it (a passphrase not known), has guessed nothing."""
    alice = key_pair(gateway.add_user("alice"))
    stranger = key_pair(gateway.make_key("stranger"))

    def failures_after(*requests: SshLoginRequest) -> int:
        before, mark = counted(gateway, "alice"), gateway.recorder.mark()
        asyncio.run(intrude(gateway.port, list(requests)))
        gateway.recorder.find("login.refused", mark)
        return counted(gateway, "alice") - before

    assert failures_after(probe("alice", alice)) == 0
    assert failures_after(SshLoginRequest("alice", b"none", b"")) == 0
    assert failures_after(probe("alice", stranger), probe("alice", stranger)) == 1
    assert failures_after(signed("alice", alice, by=stranger)) == 1
    gateway.throttle.lift(HERE)
    assert failures_after(SshLoginRequest("alice", b"password", b"\0\0\0\0\6secret")) == 1


@pytest.mark.attack("G1", "an agent of ten keys, the right one last: in, and nothing is counted")
def test_the_tenth_key_of_an_agent_gets_in(gateway: TestGateway) -> None:
    """A key that is only offered counts half of a try."""
    alice = gateway.add_user("alice")
    others = [part for number in range(9) for part in ("-i", str(gateway.make_key(f"other-{number}")))]
    for _ in range(LIMITS.failures_per_user + 1):
        done = gateway.run("alice", alice, "echo in", before=[*others, "-o", "IdentitiesOnly=yes"])
        assert done.stdout == b"in\n", done.stderr
    assert counted(gateway, "alice") == 0


@pytest.mark.attack("G1", "a network of fifty users behind one address, and an attacker among them: the users work on")
def test_a_shared_address_works_on_while_an_attacker_shares_it(gateway: TestGateway) -> None:
    """Guesses of alice's name and of many names ban both, but not who has proved a key from there."""
    users = [f"user{number}" for number in range(50)]
    key = gateway.add_user("alice")
    for user in users:
        gateway.directory.add(user, key.with_suffix(".pub").read_text())
        gateway.throttle.succeeded(HERE, user)  # they were here yesterday
    assert said(gateway, "alice", key)[0] == 0
    stranger, mark = gateway.make_key("stranger"), gateway.recorder.mark()
    for name in ["alice"] * 3 + ["root", "admin", "oracle"]:
        assert said(gateway, name, stranger)[0] == 255
    poll(lambda: gateway.throttle.ban_left_seconds(HERE), "the ban of the address")
    assert gateway.throttle.ban_left_seconds(HERE, "alice") > 0
    banned = [event for event in gateway.recorder.events[mark:] if event.code == "source.banned"]
    assert [(event.detail["address"], event.detail["user"]) for event in banned] == [(HERE, "alice"), (HERE, None)]
    assert [event.reason for event in banned] == [
        "3 connections as 'alice' proved no key within 600 s",
        "6 connections proved no key within 600 s",
    ]
    code, text = said(gateway, "carol", stranger)
    assert (code, b"too many failed logins from 127.0.0.1" in text) == (255, True)
    assert said(gateway, "alice", key) == (0, b"")
    logins = [(user, key) for user in users]
    said_to_users = [text for _code, text in together(gateway, logins, "true")]
    assert all(b"there is no environment" in text for text in said_to_users), said_to_users  # logged in, that is
    assert gateway.throttle.ban_left_seconds(HERE) > 0
    assert gateway.throttle.ban_left_seconds("127.0.0.2") == 0


@pytest.mark.emits("source.banned")
@pytest.mark.attack("G8", "tries during a ban: turned away, and it gets no longer")
def test_tries_during_a_ban_do_not_lengthen_it(gateway: TestGateway) -> None:
    """Nor are they written down one by one: the ban is in the journal once, with what it was for."""
    alice, stranger = gateway.add_user("alice"), gateway.make_key("stranger")
    mark = gateway.recorder.mark()
    for _ in range(3):
        said(gateway, "alice", stranger)
    event = gateway.recorder.find("source.banned", mark)
    assert event.detail == {"address": HERE, "user": "alice", "seconds": 300, "bans": 1}
    mark = gateway.recorder.mark()
    for _ in range(5):
        code, text = said(gateway, "alice", alice)
        assert (code, b"too many failed logins of this user" in text) == (255, True)
    (ban,) = gateway.throttle.bans(HERE)
    assert ban.bans == 1
    assert ban.left_seconds < 300
    assert gateway.recorder.events[mark:] == []


@pytest.mark.attack("E20", "forty-eight logins at once from one site: they wait, none is dropped")
def test_a_burst_of_one_site_is_let_through(tmp_path: Path) -> None:
    """Nobody has ever logged in from there, and MaxStartups and PerSourceMaxStartups are as shipped."""
    gateway = TestGateway(tmp_path, throttle_limits=Limits(), max_connections_per_user=64)
    gateway.start()
    try:
        logins = [("alice", gateway.add_user("alice")), ("bob", gateway.add_user("bob"))] * 24
        assert together(gateway, logins, "echo in") == [(0, b"in\n")] * 48
        assert together(gateway, logins, "echo in") == [(0, b"in\n")] * 48
    finally:
        gateway.stop()


@pytest.mark.attack("E20", "strangers who take every place of MaxStartups: who has proved a key before gets in")
def test_strangers_do_not_take_the_places_of_users(tmp_path: Path) -> None:
    """Idle connections of other addresses leave no place for a new one, but alice has been here."""
    gateway = TestGateway(tmp_path, max_startups="2:100:2")
    gateway.start()
    idle: list[subprocess.Popen[bytes]] = []
    try:
        alice = gateway.add_user("alice")
        assert said(gateway, "alice", alice)[0] == 0
        for number in range(2):
            bound = ["socat", "-u", f"TCP:127.0.0.1:{gateway.port},bind=127.0.0.{number + 2}", "STDOUT"]
            idle.append(subprocess.Popen(bound, stdout=subprocess.DEVNULL))
        poll(lambda: gateway.server and gateway.server._admission._startups_total == 2, "two idle connections")
        code, text = said(gateway, "alice", alice, address="127.0.0.9")
        assert (code, b"the gateway is busy" in text) == (255, True)
        assert said(gateway, "alice", alice)[0] == 0
    finally:
        for process in idle:
            process.kill()
            process.wait(timeout=60)
        gateway.stop()


def test_many_logins_of_one_key_are_all_let_in(gateway: TestGateway) -> None:
    """Sixty logins, four at a time where four are permitted: the end of one may arrive after the next has come."""
    alice = gateway.add_user("alice")
    at_once = threading.Semaphore(4)

    def one(_number: int) -> tuple[int, bytes]:
        with at_once:
            return said(gateway, "alice", alice)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(60))) == [(0, b"")] * 60
