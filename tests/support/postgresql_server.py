"""A PostgreSQL server of the tests' own: Debian's programs, a fresh cluster, a Unix socket alone.

It runs as an ordinary user, since the server refuses root, and is ended by its process when the tests end.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine

from gateway.store.database import Database
from gateway.store.schema import METADATA, REVISION

_ACCOUNT = "postgres"
"""Whom Debian's package makes for this; taken where the tests run as root."""
_START_SECONDS = 120
_SETTINGS = {
    # nothing here outlives the tests, so nothing waits for a disk
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",
}
_EMPTY_ALL = "; ".join(
    [
        *(f'DELETE FROM "{table.name}"' for table in reversed(METADATA.sorted_tables) if table is not REVISION),  # noqa: S608
        "UPDATE revision SET number = 1",
    ]
)


def server_programs() -> Path:
    """Return the directory of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    assert found, "no PostgreSQL server; tests/setup/install installs one"
    return found[-1].parent


class PostgresqlServer:
    """A cluster; `stop` and `start` are a server's outage and its end."""

    def __init__(self, directory: Path, *, port: int = 5432, password: str = "", listens: str = "") -> None:
        self.directory = directory
        self.port = port
        self._password = password
        self._listens = listens
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        self._template = ""
        self._free: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam(_ACCOUNT)
            os.chown(directory, account.pw_uid, account.pw_gid)
        self._make()
        self.start()

    def _make(self) -> None:
        how = "scram-sha-256" if self._password else "trust"
        secret = self.directory / "password"
        secret.write_text(f"{self._password}\n")
        secret.chmod(0o644)
        command = [
            "initdb", "--pgdata", str(self.directory / "data"), "--username", "devgw", "--auth", how,
            "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
            *(["--pwfile", str(secret)] if self._password else []),
        ]  # fmt: skip
        subprocess.run(self._as_account(command), check=True, timeout=_START_SECONDS, capture_output=True)

    def _as_account(self, command: list[str]) -> list[str]:
        program = [str(server_programs() / command[0]), *command[1:]]
        if os.geteuid() != 0:
            return program
        ids = [f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--init-groups"]
        return ["setpriv", *ids, "--pdeathsig", "QUIT", *program]

    def start(self) -> None:
        """Serve, and return when it answers."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        command = [
            "postgres", "-D", str(self.directory / "data"), "-k", str(self.directory), "-p", str(self.port),
            f"--listen_addresses={self._listens}", *settings,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._as_account(command), stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        ready = [str(server_programs() / "pg_isready"), "-q", "-h", str(self.directory), "-p", str(self.port)]
        while subprocess.run(ready, check=False, timeout=_START_SECONDS).returncode:
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT ends connections at once, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=_START_SECONDS)
            self._process = None

    def url(self, database: str = "postgres", *, user: str = "devgw", password: str | None = None) -> str:
        """Return what `database_url` would say."""
        secret = self._password if password is None else password
        who = f"{user}:{secret}" if secret else user
        return f"postgresql+psycopg://{who}@/{database}?host={self.directory}&port={self.port}"

    def empty_database(self) -> str:
        """Make a database without tables; return its URL."""
        return self._make_database("template1")

    def database(self) -> str:
        """Return the URL of a database with empty tables: one that was given back, or a copy of one migrated once."""
        if self._free:
            return self._free.pop()
        if not self._template:
            url = self.empty_database()
            database = Database(url)
            database.revision()
            database.close()
            self._template = url
        return self._make_database(_name_in(self._template))

    def give_back(self, url: str) -> None:
        """Empty a database that has its tables, whoever is connected to it, so that another test may have it."""
        name = _name_in(url)
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
        self.execute(_EMPTY_ALL, name)
        self._free.append(url)

    def _make_database(self, template: str) -> str:
        name = f"devgw_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the superuser, outside a transaction; return its rows."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                found = connection.exec_driver_sql(statement)
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            engine.dispose()


def _name_in(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


@contextmanager
def postgresql_server(*, password: str = "", listens: str = "", port: int = 5432) -> Iterator[PostgresqlServer]:
    """Serve from a short path, since a socket's may have 107 characters at most; remove everything at the end."""
    directory = Path(tempfile.mkdtemp(prefix="devgw-pg-"))
    server: PostgresqlServer | None = None
    try:
        server = PostgresqlServer(directory, password=password, listens=listens, port=port)
        yield server
    finally:
        if server is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(directory, ignore_errors=True)
