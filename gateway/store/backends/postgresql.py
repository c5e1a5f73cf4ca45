"""PostgreSQL by psycopg 3: one database that several gateways have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, text

from gateway.errors import StoreError
from gateway.store.backends.interface import ONLY_READS

DRIVER = "postgresql+psycopg"
WRITERS_LOCK = 0x6465766777  # "devgw"; advisory locks count within one database
_LOCK_TIMEOUT_MS = 15_000
_IDLE_TIMEOUT_MS = 60_000
"""A gateway that was stopped in the middle of a transaction lets the others write again after this."""
_CONNECTION: dict[str, str | int] = {
    "application_name": "devgw",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,  # a server that is gone without a word is given up after so many milliseconds
}
"""libpq's own words; the URL may name others (postgresql.org/docs/current/libpq-connect.html)."""

_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
"""What was acknowledged is kept over a crash, whatever the server's default; a site may ask for more than `on`."""

_HINTS = (
    # what the server or libpq says, what helps
    ("password authentication failed", "check user and password in database_url, or in the file that passfile names"),
    ("no password supplied", "name the password in database_url, or a file of passwords with '?passfile=/path'"),
    ("authentication failed", "pg_hba.conf of the server says who may log in, and how"),
    ("no pg_hba.conf entry", "pg_hba.conf of the server says who may log in, and from where"),
    ("does not exist", "on the server: createuser devgw; createdb --owner devgw --encoding UTF8 devgw"),
    ("permission denied", "the user in database_url must own the database's tables"),
    ("read-only transaction", "this server is a standby; name the primary, or add '?target_session_attrs=read-write'"),
    ("lock timeout", "another gateway holds the database; pg_stat_activity on the server shows which"),
    ("too many clients", "raise max_connections on the server: each gateway takes up to 20"),
    ("connection slots", "raise max_connections on the server: each gateway takes up to 20"),
    ("certificate", "sslrootcert in database_url names the CA that the server's certificate is from"),
)
_USUAL_HINT = "is the server running, and are host, port and database in database_url right?"


class PostgreSql:
    """A database on a server."""

    path: Path | None = None
    reading_options: Mapping[str, Any] = {
        ONLY_READS: True,
        "isolation_level": "REPEATABLE READ",
        "postgresql_readonly": True,
    }

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername=DRIVER)

    def open(self) -> Engine:
        arguments = {name: value for name, value in _CONNECTION.items() if name not in self._url.query}
        try:
            # a writer reads what was committed before each of its statements: it has waited for all other writers
            engine = create_engine(
                self._url, isolation_level="READ COMMITTED", pool_pre_ping=True, connect_args=arguments
            )
        except ImportError as exc:
            raise StoreError(
                "store.driver-missing",
                f"database_url names PostgreSQL, and its driver cannot be loaded: {str(exc).splitlines()[0]}",
                "pip install 'devgw[postgresql]'",
            ) from exc
        event.listen(engine, "connect", _set_session)
        event.listen(engine, "begin", _begin)
        return engine

    def open_for_locks(self) -> Engine:
        """A connection each, of no pool: what it holds lasts as long as it does."""
        arguments = {name: value for name, value in _CONNECTION.items() if name not in self._url.query}
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT", poolclass=NullPool, connect_args=arguments)
        event.listen(engine, "connect", _watch_client)
        return engine

    def make_ready(self) -> None:
        """Nothing: the database is made by whoever looks after the server."""

    def explain(self, exc: Exception) -> StoreError:
        cause = self._without_password(_first_line(exc))
        hint = next((hint for said, hint in _HINTS if said in cause), _USUAL_HINT)
        return StoreError("store.unusable", f"cannot use the database {self._place}: {cause}", hint)

    @property
    def _place(self) -> str:
        """Name the database without user, password or options."""
        return URL.create(
            "postgresql", host=self._url.host, port=self._url.port, database=self._url.database
        ).render_as_string()

    def _without_password(self, said: str) -> str:
        secrets = [self._url.password, *(self._url.query.get(name) for name in ("password", "sslpassword"))]
        for secret in secrets:
            if secret:
                said = said.replace(str(secret), "***")
        return said


def _set_session(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_DURABLE)
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_TIMEOUT_MS}")
    connection.commit()


def _watch_client(connection: Any, _record: Any) -> None:
    """Have the server notice soon that a gateway's host is gone, and give its locks to others."""
    with connection.cursor() as cursor:
        for name, value in (("idle", 3), ("interval", 1), ("count", 3)):
            cursor.execute(f"SET tcp_keepalives_{name} = {value}")
        cursor.execute("SET tcp_user_timeout = 6000")
    connection.commit()


def _begin(connection: Connection) -> None:
    """Let writers come one after the other, as SQLite does: then no two of them can have read what both then change."""
    if not connection.get_execution_options().get(ONLY_READS):
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITERS_LOCK})


def _first_line(exc: Exception) -> str:
    """Return what the server said; libpq writes a line for each address that it tried, and questions after it."""
    said = str(getattr(exc, "orig", None) or exc).strip()
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = lines[0] if lines else type(exc).__name__
    return first.removeprefix("connection failed: ").removeprefix("connection is bad: ")
