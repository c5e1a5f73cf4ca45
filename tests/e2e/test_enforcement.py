"""Live sessions end within two seconds of losing their ground, and nobody else's do (invariants 8 and 13)."""

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from policies.requests import Decision, ForwardRequest, Request
from tests.e2e.conftest import Laboratory
from tests.support.host_resources import free_port
from tests.support.ssh_clients import is_listening, poll
from tests.support.ssh_gateway import TestGateway, lab_policy

WITHIN_SECONDS = 2.0


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[TestGateway]:
    made = TestGateway(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def recheck(gateway: TestGateway) -> list[str]:
    assert gateway.server is not None
    return gateway.call(gateway.server.recheck(gateway.decide))


def start(
    gateway: TestGateway, handle: str, key: Path, *arguments: str, before: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    command = gateway.ssh(handle, key, *arguments, before=before)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def expect_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line


def remove_key(gateway: TestGateway) -> None:
    gateway.directory.keys_by_user["alice"] = []


def disable(gateway: TestGateway) -> None:
    gateway.directory.users["alice"] = replace(gateway.directory.users["alice"], disabled=True)


def move_away(gateway: TestGateway) -> None:
    moved = replace(gateway.directory.users["alice"], closed_because="you are on gpu2 now: ssh -p 2222 alice@gpu2")
    gateway.directory.users["alice"] = moved


def delete_user(gateway: TestGateway) -> None:
    del gateway.directory.users["alice"]


def leave_hours(gateway: TestGateway) -> None:
    def policy(request: Request) -> Decision:
        if request.subject.user == "alice":
            return Decision(False, "lab.hours", "the laboratory is closed")
        return lab_policy(request)

    gateway.policy = policy


@pytest.mark.attack(
    "F1", "key removed, user disabled, user deleted, hours over: shell and idle tunnel end, bob's do not"
)
@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (remove_key, b"the key was removed"),
        (disable, b"the user is disabled"),
        (move_away, b"you are on gpu2 now: ssh -p 2222 alice@gpu2"),
        (delete_user, b"the user was deleted"),
        (leave_hours, b"the laboratory is closed"),
    ],
)
def test_a_user_without_ground_is_cut_and_told(
    gateway: TestGateway, lose: Callable[[TestGateway], None], reason: bytes
) -> None:
    """Session and tunnel of alice end with the reason; bob's session goes on undisturbed."""
    alice, bob = gateway.add_user("alice"), gateway.add_user("bob")
    port, mark = free_port(), gateway.recorder.mark()
    session = start(gateway, "alice", alice, "echo in; sleep 60")
    idle = start(gateway, "alice", alice, before=("-N", "-L", f"{port}:localhost:8888"))
    other = start(gateway, "bob", bob, "cat")
    expect_line(session, b"in\n")
    poll(lambda: is_listening(port), "the tunnel")

    lose(gateway)
    began = time.monotonic()
    assert len(recheck(gateway)) == 2
    _, told = session.communicate(timeout=5)
    _, told_idle = idle.communicate(timeout=5)
    assert time.monotonic() - began < WITHIN_SECONDS
    assert reason in told
    assert reason in told_idle
    closed = gateway.recorder.find("connection.closed", mark)
    assert reason.decode() in closed.reason
    assert closed.reference.encode() in told + told_idle
    opened = next(e for e in gateway.recorder.events[mark:] if e.code == "session.opened" and e.actor.name == "alice")
    poll(lambda: opened.detail["connection"] in connections_of(gateway, "session.closed", mark), "the session's end")
    poll(lambda: opened.detail["connection"] in connections_of(gateway, "connection.closed", mark), "its connection's")

    out, _ = other.communicate(b"still here", timeout=10)
    assert out == b"still here"


def connections_of(gateway: TestGateway, code: str, mark: int) -> set[object]:
    """Return the ids of the connections that records of a code name."""
    return {event.detail["connection"] for event in gateway.recorder.events[mark:] if event.code == code}


@pytest.mark.attack("F1", "a key removed in the middle of an upload by sftp")
def test_a_transfer_ends_with_the_access(gateway: TestGateway, tmp_path: Path) -> None:
    """Alice's scp ends with a fault and the file is not whole; bob's command goes on."""
    alice, bob = gateway.add_user("alice"), gateway.add_user("bob")
    size, mark = 200 << 20, gateway.recorder.mark()
    with (tmp_path / "big").open("wb") as big:
        big.truncate(size)
    options = [*gateway.options(alice), "-P", str(gateway.port), "-l", "16000"]  # 2 MB/s: it cannot be over
    upload = subprocess.Popen(["scp", "-s", *options, str(tmp_path / "big"), "alice@127.0.0.1:big"])
    other = start(gateway, "bob", bob, "cat")
    server = gateway.server
    assert server is not None
    poll(lambda: any(report.received_bytes > 300_000 for report in server.registry.report()), "the upload")

    remove_key(gateway)
    began = time.monotonic()
    assert len(recheck(gateway)) == 1
    assert upload.wait(5) != 0
    assert time.monotonic() - began < WITHIN_SECONDS
    assert "the key was removed" in gateway.recorder.find("connection.closed", mark).reason
    out, _ = other.communicate(b"still here", timeout=10)
    assert out == b"still here"


@pytest.mark.attack("F2", "a forward that the policy no longer permits, in the middle of a download")
def test_a_narrowed_policy_ends_the_tunnel_alone(gateway: TestGateway) -> None:
    """A forward that is no longer allowed ends; the session beside it on the same connection goes on."""
    alice = gateway.add_user("alice")
    port = free_port()
    session = start(gateway, "alice", alice, "cat", before=("-L", f"{port}:localhost:8888"))
    poll(lambda: is_listening(port), "the tunnel")
    command = ["curl", "-sN", "--limit-rate", "2M", f"http://127.0.0.1:{port}/blob?size=90000000", "-o", "/dev/null"]
    download = subprocess.Popen(command)
    server = gateway.server
    assert server is not None
    poll(lambda: any(report.sent_bytes > 100_000 for report in server.registry.report()), "the download")

    def no_forwards(request: Request) -> Decision:
        if isinstance(request, ForwardRequest):
            return Decision(False, "lab.narrowed", "no forwards today")
        return lab_policy(request)

    gateway.policy = no_forwards
    mark = gateway.recorder.mark()
    assert recheck(gateway) == []
    assert download.wait(40) != 0
    assert gateway.recorder.find("forward.closed", mark, saying="no forwards today").actor.name == "alice"
    out, _ = session.communicate(b"still here", timeout=10)
    assert out == b"still here"


@pytest.mark.attack("F1", "an administrator ends one connection and no other")
def test_an_administrator_closes_one_connection(gateway: TestGateway) -> None:
    """`close` ends the named connection with the reason and leaves the user's other one."""
    alice = gateway.add_user("alice")
    first = start(gateway, "alice", alice, "echo in; sleep 60")
    expect_line(first, b"in\n")
    second = start(gateway, "alice", alice, "cat")
    server = gateway.server
    assert server is not None
    reports = poll(lambda: reports if len(reports := server.registry.report()) == 2 else None, "both connections")
    assert reports[0].user == "alice"
    assert reports[0].channels == ("session exec echo in; sleep 60",)
    gateway.loop.call_soon_threadsafe(server.registry.close, [reports[0].id], "closed for maintenance")
    _, told = first.communicate(timeout=5)
    assert b"closed for maintenance" in told
    out, _ = second.communicate(b"still here", timeout=10)
    assert out == b"still here"


def test_a_stopped_environment_wakes_with_a_word(gateway: TestGateway) -> None:
    """Three sessions at once cause one start; each user is told on stderr why it takes a moment."""
    alice = gateway.add_user("alice", running=False)
    sessions = [start(gateway, "alice", alice, "echo up") for _ in range(3)]
    results = [session.communicate(timeout=30) for session in sessions]
    assert [out for out, _ in results] == [b"up\n"] * 3
    assert all("starting your environment" in err.decode() for _, err in results)
    assert gateway.environments.starts == 1


@pytest.mark.attack("F7", "the environment dies under a session")
def test_a_dead_environment_is_noticed_and_reached_again(gateway: TestGateway) -> None:
    """When the environment dies the session ends and says so; the next login wakes it."""
    alice = gateway.add_user("alice")
    session = start(gateway, "alice", alice, "echo in; sleep 60")
    expect_line(session, b"in\n")
    next(iter(gateway.environments.by_ref.values())).stop()
    _, err = session.communicate(timeout=10)
    assert b"the connection to your environment was lost" in err
    assert session.returncode == 125
    assert gateway.run("alice", alice, "echo back").stdout == b"back\n"


@pytest.mark.attack("F5", "SIGTERM: the drain")
def test_draining_ends_idle_users_with_a_word(gateway: TestGateway) -> None:
    """After the drain time those who are left are told to connect again; newcomers are turned away at once."""
    alice = gateway.add_user("alice")
    session = start(gateway, "alice", alice, "echo in; sleep 60")
    expect_line(session, b"in\n")
    assert gateway.server is not None
    gateway.call(gateway.server.drain())
    _, err = session.communicate(timeout=10)
    assert b"the gateway is shutting down" in err


def test_laboratory_is_untouched_by_a_recheck(laboratory: Laboratory) -> None:
    """A recheck that finds nothing wrong ends nothing."""
    session = start(laboratory.gateway, "alice", laboratory.alice, "cat")
    server = laboratory.gateway.server
    assert server is not None
    poll(lambda: len(server.registry), "the connection")
    assert recheck(laboratory.gateway) == []
    out, _ = session.communicate(b"x", timeout=10)
    assert out == b"x"
