"""Locks in the database: one holder in all processes, free at the end of a process, and known to be lost."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.environments.locks import SharedLocks
from gateway.errors import ConflictError, StoreError
from gateway.model import EnvironmentRef
from gateway.store.database import Database
from tests.support.gateway_process import poll
from tests.support.postgresql_server import PostgresqlServer, postgresql_server

ALICE, BOB = (EnvironmentRef.parse(name) for name in ("alice", "bob"))
_HOLD = (
    "import sys; from gateway.store.database import Database; lock = Database(sys.argv[1]).lock('leader');"
    "print(lock.take(wait=False), flush=True); sys.stdin.read()"
)


@pytest.fixture
def database(postgresql: PostgresqlServer) -> Iterator[Database]:
    url = postgresql.database()
    made = Database(url)
    yield made
    made.close()
    postgresql.give_back(url)


def test_an_environment_is_acted_on_by_one_gateway_at_a_time(database: Database) -> None:
    """Another waits, or is told; another environment is free."""
    one, other = SharedLocks(database.lock), SharedLocks(database.lock)
    with ThreadPoolExecutor(1) as pool:
        with one.hold(ALICE):
            with other.hold(BOB):
                pass
            with pytest.raises(ConflictError) as refused, other.hold(ALICE, wait=False):
                pass
            assert refused.value.code == "environment.busy"
            waiting = pool.submit(lambda: other.hold(ALICE).__enter__())
            assert not waiting.done()
        waiting.result(timeout=60)


def test_a_killed_process_holds_nothing(postgresql: PostgresqlServer) -> None:
    """The next has it within a second or two."""
    url = postgresql.database()
    command = [sys.executable, "-c", _HOLD, url]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "True\n"
    database = Database(url)
    lock = database.lock("leader")
    assert not lock.take(wait=False)
    first.kill()
    first.communicate(timeout=60)
    poll(lambda: lock.take(wait=False), "the lock of a killed process", seconds=5)
    assert lock.is_held()
    lock.release()
    assert not lock.is_held()
    database.close()
    postgresql.give_back(url)


def test_a_lock_is_known_to_be_lost_with_its_server(caplog: pytest.LogCaptureFixture) -> None:
    """And is to be had again when it is back."""
    with postgresql_server() as server:
        database = Database(server.database())
        lock = database.lock("leader")
        assert lock.take(wait=False)
        server.stop()
        assert not lock.is_held()
        lock.release()
        with pytest.raises(StoreError):
            lock.take(wait=False)
        server.start()
        assert lock.take(wait=False)
        lock.release()
        database.close()


def test_a_file_has_no_such_locks(tmp_path) -> None:
    """Its processes are of one host, where the kernel's are better."""
    assert not Database(f"sqlite:///{tmp_path / 'devgw.db'}").has_locks
