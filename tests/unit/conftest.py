"""Databases for tests of what is stored: the same test on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Databases, SqliteCopies
from tests.support.postgresql_server import PostgresqlServer, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A server of this test run's own."""
    with postgresql_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of a test's own, once of each kind; on the server with its tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'devgw.db'}"
        return
    server = request.getfixturevalue("postgresql")
    url = server.database()
    yield url
    server.give_back(url)


@pytest.fixture(scope="module")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Many databases for one test, of the quicker kind."""
    return SqliteCopies(tmp_path_factory.mktemp("template") / "devgw.db")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Many databases for one test, once of each kind."""
    found: Databases = request.getfixturevalue("sqlite_databases" if request.param == "sqlite" else "postgresql")
    return found
