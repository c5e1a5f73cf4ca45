"""PostgreSQL as the database: many processes at once, what goes wrong in one line, and a server that goes and comes."""

import builtins
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Event

import pytest
from sqlalchemy import text

from gateway.errors import StoreError
from gateway.model import UserName
from gateway.store.backends import postgresql as backend
from gateway.store.database import SCHEMA_HEAD, Database
from gateway.store.integrity import integrity_faults
from gateway.store.users import Users
from tests.support.gateway_process import poll
from tests.support.host_resources import free_port
from tests.support.postgresql_server import PostgresqlServer, postgresql_server

_SECRET = "sesame-9f2c"  # what must be in no message
_FIRST_START = "import sys; from gateway.store.database import Database; print(Database(sys.argv[1]).revision())"


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgresqlServer]:
    """A server that asks for a password, and listens on loopback too."""
    with postgresql_server(password=_SECRET, listens="127.0.0.1", port=free_port()) as server:
        yield server


def test_processes_that_start_first_at_once_make_the_tables_once(postgresql: PostgresqlServer) -> None:
    """Five of them, each a process of its own: all of them find the same tables."""
    url = postgresql.empty_database()
    command = [sys.executable, "-c", _FIRST_START, url]
    starting = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in starting]
    assert ended == [("1\n", "", 0)] * 5


def test_users_made_at_once_get_one_uid_each(database_url: str) -> None:
    """Twenty names, each asked for by three gateways at the same moment."""
    names = [UserName(f"user{number}") for number in range(20)] * 3
    several = [Database(database_url) for _ in range(3)]
    several[0].revision()
    start = Barrier(len(names))

    def ensure(number: int) -> tuple[str, int]:
        start.wait(timeout=60)
        user = Users(several[number // 20]).ensure(names[number], uid_start=20_000)
        return user.name, user.uid

    with ThreadPoolExecutor(len(names)) as pool:
        made = set(pool.map(ensure, range(len(names))))
    for database in several:
        database.close()
    assert sorted(uid for _name, uid in made) == list(range(20_000, 20_020))
    assert len({name for name, _uid in made}) == 20


def test_a_transaction_that_reads_sees_one_moment(database_url: str) -> None:
    """What somebody else commits between its two questions is not in it."""
    database = Database(database_url)
    users = Users(database)
    users.ensure(UserName("alice"), uid_start=20_000)
    with database.reading() as connection, ThreadPoolExecutor(1) as other:
        before = connection.exec_driver_sql("SELECT count(*) FROM users").scalar()
        other.submit(users.ensure, UserName("bob"), uid_start=20_000).result(timeout=60)
        assert connection.exec_driver_sql("SELECT count(*) FROM users").scalar() == before == 1
    assert len(users.all()) == 2
    database.close()


def _wrong_password(server: PostgresqlServer) -> str:
    return server.url(password="wrong-" + _SECRET).replace(f"host={server.directory}", "host=127.0.0.1")


def _no_server(server: PostgresqlServer) -> str:
    return server.url().replace(f"port={server.port}", f"port={free_port()}")


@pytest.mark.parametrize(
    ("url_of", "code", "said", "hint"),
    [
        (_wrong_password, "store.unusable", "password authentication failed", "passfile"),
        (_no_server, "store.unusable", "connection to server", "is the server running"),
        (lambda server: server.url("absent"), "store.unusable", 'database "absent" does not exist', "createdb"),
        (lambda server: server.url(user="eve"), "store.unusable", "authentication failed", "database_url"),
        (lambda _server: f"postgresql+psycopg://devgw:{_SECRET}@host:port/db", "store.bad-url", "as a URL", "%40"),
        (lambda _server: f"postgresql+psycopg://devgw:{_SECRET}@/db?sslmode=x", "store.unusable", "sslmode", "running"),
        (lambda _server: f"mysql://devgw:{_SECRET}@host/db", "store.bad-url", "mysql", "postgresql+psycopg://"),
        (lambda _server: "nonsense", "store.bad-url", "as a URL", "postgresql+psycopg://"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_line_without_a_password(
    guarded: PostgresqlServer, url_of: Callable[[PostgresqlServer], str], code: str, said: str, hint: str
) -> None:
    """The hint says what to do; what the URL keeps secret stays so, in `devgw doctor` too."""
    url = url_of(guarded)
    for ask in (lambda: Database(url).revision(), lambda: integrity_faults(url)):
        with pytest.raises(StoreError) as refused:
            ask()
        error = refused.value
        assert (error.code, said in error.message, hint in error.hint) == (code, True, True), error.message
        assert "\n" not in error.message
        assert _SECRET not in error.message + error.hint


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint installs it."""
    real = builtins.__import__

    def without_psycopg(name: str, *arguments: object, **more: object) -> object:
        if name.split(".", maxsplit=1)[0] == "psycopg":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_psycopg)
    with pytest.raises(StoreError) as refused:
        Database("postgresql+psycopg://devgw@host/devgw")
    assert refused.value.code == "store.driver-missing"
    assert refused.value.hint == "pip install 'devgw[postgresql]'"


def test_tables_of_an_older_devgw_are_brought_up_to_date_and_keep_what_they_hold(database_url: str) -> None:
    """From the first tables on, a version at a time back and all at once forward."""
    database = Database(database_url)
    Users(database).ensure(UserName("alice"), uid_start=20_000)
    while database.downgrade()[1] != "0001":
        """One back."""
    database.close()
    renewed = Database(database_url)
    assert [user.name for user in Users(renewed).all()] == ["alice"]
    with renewed.reading() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == SCHEMA_HEAD
    renewed.close()


def test_tables_of_a_newer_devgw_are_left_alone(database_url: str) -> None:
    """And the reason is told, before anything is read as what it may no longer be."""
    database = Database(database_url)
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    other = Database(database_url)
    with pytest.raises(StoreError, match="9999") as refused:
        other.revision()
    assert refused.value.code == "store.newer-schema"
    assert "9999 is newer" in integrity_faults(database_url)
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": SCHEMA_HEAD})
    database.close()
    other.close()


def test_a_server_that_comes_back_is_used_again_and_what_was_promised_is_there() -> None:
    """It is killed in the middle of writing: no user that was acknowledged is lost, and no process starts anew."""
    with postgresql_server() as server:
        database = Database(server.database())
        users, acknowledged, enough = Users(database), [], Event()

        def write() -> None:
            for number in range(10_000):
                try:
                    users.ensure(UserName(f"user{number}"), uid_start=20_000)
                except StoreError:
                    return
                acknowledged.append(f"user{number}")
                if number == 30:
                    enough.set()

        with ThreadPoolExecutor(1) as other:
            writing = other.submit(write)
            assert enough.wait(timeout=60)
            server.stop(signal.SIGQUIT)
            writing.result(timeout=60)
        with pytest.raises(StoreError) as refused:
            users.all()
        assert refused.value.code == "store.unusable"
        server.start()
        there = poll(lambda: _names(users), "the users")
        assert set(acknowledged) <= there
        assert sorted(user.uid for user in users.all()) == list(range(20_000, 20_000 + len(there)))
        database.close()


def _names(users: Users) -> set[str]:
    try:
        return {str(user.name) for user in users.all()}
    except StoreError:
        return set()


def test_a_writer_that_stands_still_holds_the_others_up_for_a_bounded_time(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told so; readers do not notice."""
    monkeypatch.setattr(backend, "_LOCK_TIMEOUT_MS", 300)
    url = postgresql.database()
    first, second = Database(url), Database(url)
    with first.transaction():
        assert second.revision() == 1
        with pytest.raises(StoreError, match="lock timeout") as refused:
            Users(second).ensure(UserName("alice"), uid_start=20_000)
        assert "pg_stat_activity" in refused.value.hint
    first.close()
    second.close()
    postgresql.give_back(url)


def test_every_hint_can_be_reached() -> None:
    """No hint stands behind one that a shorter text of the server chooses first."""
    said = [text for text, _hint in backend._HINTS]
    assert not [(one, two) for one, two in pairwise(said) if one in two]


def test_a_setting_that_is_no_known_url_is_refused_at_once(tmp_path: Path) -> None:
    """By every command, without repeating it."""
    command = [sys.executable, "-m", "gateway", "list"]
    variables = {"DEVGW_DATABASE_URL": f"postgres://devgw:{_SECRET}@host/db", "HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(command, check=False, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "DEVGW_DATABASE_URL: database_url: write postgresql+psycopg://" in done.stderr
    assert _SECRET not in done.stderr + done.stdout
