"""A PostgreSQL database dumped whole while gateways write to it, and loaded into an empty one, by its own two tools.

`pg_dump` reads in one transaction; `pg_restore` writes in one, so a load that fails leaves the database empty.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from gateway.errors import ConflictError, StoreError
from gateway.store.backends.choice import backend_of

_SECONDS = 3600
_CLIENT = "install PostgreSQL's client programs, of the server's version or newer: apt-get install postgresql-client"


def dump(url: str, target: Path) -> str:
    """Write a dump to a new file, mode 0600. Returns its schema's revision.

    Raises:
        StoreError: `store.unusable`, what the server or the tool says; `store.no-space`.
    """
    revision = schema_in(url)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError("store.unusable", f"{target}: {exc.strerror}", "check owner and free space") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges"], make_url(url), stdout=file.fileno())
            os.fsync(file.fileno())
        _require_schema(url, revision)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return revision


def _require_schema(url: str, revision: str) -> None:
    if schema_in(url) != revision:
        raise StoreError("store.unusable", "the database's tables changed while it was dumped", "try again")


def require_whole(dumped: Path) -> None:
    """Read a dump from its beginning to its end. Raises: StoreError `store.unusable`."""
    _run("pg_restore", ["--file=/dev/null", str(dumped)], None)


def require_empty(url: str) -> None:
    """Raises: ConflictError `restore.not-empty`, where the database has tables; StoreError `store.unusable`."""
    engine = backend_of(url, bool).open()
    try:
        with engine.connect() as connection:
            tables = inspect(connection).get_table_names()
    except SQLAlchemyError as exc:
        raise StoreError("store.unusable", _said_by(exc), "is database_url right?") from exc
    finally:
        engine.dispose()
    if tables:
        raise ConflictError(
            "restore.not-empty",
            f"the database {make_url(url).render_as_string(hide_password=True)} has tables already",
            "name an empty one by database_url ('createdb --owner devgw NAME' on the server); none is emptied here",
        )


def load(dumped: Path, url: str) -> None:
    """Load a dump into an empty database. Raises: StoreError, and then the database is as empty as it was."""
    words = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
    _run("pg_restore", [*words, str(dumped)], make_url(url))


def schema_in(url: str) -> str:
    """Return the revision of the database's tables; nothing where there are none. Raises: StoreError."""
    engine = backend_of(url, bool).open()
    try:
        with engine.connect() as connection:
            if "alembic_version" not in inspect(connection).get_table_names():
                return ""
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    except SQLAlchemyError as exc:
        raise StoreError("store.unusable", _said_by(exc), "is the server running, and is database_url right?") from exc
    finally:
        engine.dispose()


def _run(tool: str, words: list[str], url: URL | None, stdout: int = subprocess.DEVNULL) -> None:
    """Run one of the tools; the password stands in its environment, where no list of processes shows it."""
    program = shutil.which(tool)
    if program is None:
        raise StoreError("store.unusable", f"{tool} is not there, which dumps and loads PostgreSQL", _CLIENT)
    conninfo, secret = _address(url) if url is not None else ("", {})
    command = [program, *words, *([f"--dbname={conninfo}"] if url is not None else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | secret
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, env=environment,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StoreError("store.unusable", f"{tool}: {exc}", _CLIENT) from exc
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        if any("No space left on device" in line for line in said):
            raise StoreError("store.no-space", f"no space for a dump of the database: {said[0]}", "make room")
        hint = _CLIENT if any("version mismatch" in line or "unsupported version" in line for line in said) else ""
        raise StoreError("store.unusable", said[0][:300], hint or "is the server running, and is database_url right?")


def _address(url: URL) -> tuple[str, dict[str, str]]:
    """Return libpq's words for a database, and apart from them the variable with its password."""
    from psycopg.conninfo import make_conninfo

    words: dict[str, Any] = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
    password = words.pop("password", None)
    return make_conninfo(**words), {"PGPASSWORD": str(password)} if password else {}


def _said_by(exc: SQLAlchemyError) -> str:
    with suppress(AttributeError, IndexError):
        return str(exc.orig).strip().splitlines()[0]  # type: ignore[attr-defined]
    return str(exc).splitlines()[0]
