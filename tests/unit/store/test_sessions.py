"""Live connections in the store: each process writes its own, and those of dead ones are not there."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.engines.bubblewrap.process import Process
from gateway.model import UserName
from gateway.store.database import Database
from gateway.store.sessions import LiveSession, LiveSessionTable, Owner

ALICE = LiveSession(
    "a1", "alice", "SHA256:x", "192.0.2.7", "alice", ("session shell",), 1, 2**40, datetime.now(UTC)
)  # fmt: skip
BOB = replace(ALICE, id="b1", user="bob", environment="bob", since=datetime.now(UTC))


def owner_of(pid: int) -> Owner:
    found = Process.of(pid)
    assert found is not None
    return Owner(found.pid, found.started, found.boot)


@pytest.fixture
def own() -> Owner:
    found = Process.own()
    return Owner(found.pid, found.started, found.boot)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait(timeout=60)


@pytest.fixture
def table(database_url: str) -> Iterator[LiveSessionTable]:
    database = Database(database_url)
    yield LiveSessionTable(database, lambda owner: Process(*owner).is_alive())
    database.close()


def sessions(table: LiveSessionTable, user: str | None = None) -> list[LiveSession]:
    return [one.session for one in table.all(None if user is None else UserName(user))]


def test_a_published_session_comes_back_as_it_was(table: LiveSessionTable, own: Owner):
    """Channels, bytes beyond 32 bits, and the moment with its time zone."""
    table.publish(own, [ALICE, BOB], (), ())
    assert sessions(table) == [ALICE, BOB]
    assert sessions(table, "bob") == [BOB]
    moved = replace(ALICE, channels=(), sent_bytes=7)
    table.publish(own, [moved], ["b1"], ())
    assert sessions(table) == [moved]


def test_a_users_connections_in_other_processes_are_counted(
    table: LiveSessionTable, own: Owner, other: subprocess.Popen[bytes]
):
    """Neither one's own, nor those of somebody else or of a dead process."""
    table.publish(own, [ALICE], (), ())
    table.publish(owner_of(other.pid), [replace(ALICE, id="a2"), replace(ALICE, id="a3"), BOB], (), ())
    assert table.count_of_others(own, UserName("alice")) == 2
    assert table.count_of_others(owner_of(other.pid), UserName("alice")) == 1
    other.kill()
    other.wait(timeout=60)
    assert table.count_of_others(own, UserName("alice")) == 0


def test_sessions_of_a_killed_process_are_not_shown_and_are_swept(
    table: LiveSessionTable, own: Owner, other: subprocess.Popen[bytes]
):
    """Two processes serve at once; the one that is killed takes only its own connections along."""
    killed = owner_of(other.pid)
    table.publish(own, [ALICE], (), ())
    table.publish(killed, [BOB], (), ())
    table.ask_to_end(table.all(UserName("bob")), "out")
    assert sessions(table) == [ALICE, BOB]
    other.kill()
    other.wait(timeout=60)
    assert sessions(table) == [ALICE]
    assert table.to_end(killed) == {"b1": "out"}
    table.sweep()
    assert table.to_end(killed) == {}
    assert sessions(table) == [ALICE]


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_later_process_with_the_same_pid_owns_nothing(table: LiveSessionTable, own: Owner, change: dict[str, str]):
    """After a reboot, or when pids have gone round."""
    table.publish(own._replace(**change), [ALICE], (), ())
    assert sessions(table) == []


def test_a_kill_request_reaches_its_own_process_only(
    table: LiveSessionTable, own: Owner, other: subprocess.Popen[bytes]
):
    """The same id may live in two processes; the last reason counts, and a heeded request is gone."""
    table.publish(own, [ALICE], (), ())
    table.publish(owner_of(other.pid), [ALICE], (), ())
    mine = [one for one in table.all() if one.owner == own]
    table.ask_to_end(mine, "first")
    table.ask_to_end(mine, "second")
    assert table.to_end(own) == {"a1": "second"}
    assert table.to_end(owner_of(other.pid)) == {}
    table.publish(own, [], ["a1"], ["a1"])
    assert table.to_end(own) == {}


def test_a_kill_request_makes_a_running_gateway_look(database_url: str, own: Owner):
    """It counts as a change of access; publishing does not, or every byte would cost a recheck."""
    database = Database(database_url)
    table = LiveSessionTable(database, lambda _owner: True)
    before = database.revision()
    table.publish(own, [ALICE], (), ())
    assert database.revision() == before
    table.ask_to_end(table.all(), "out")
    assert database.revision() == before + 1


def test_a_clean_end_leaves_nothing(table: LiveSessionTable, own: Owner):
    """Neither connections nor requests."""
    table.publish(own, [ALICE], (), ())
    table.ask_to_end(table.all(), "out")
    table.clear(own)
    assert sessions(table) == []
    assert table.to_end(own) == {}
