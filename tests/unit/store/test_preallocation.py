"""The database's own room: free pages in the file, and a log that owns its blocks."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.disk import Ballast, owned_bytes
from gateway.model import UserName
from gateway.store.database import Database
from gateway.store.preallocation import FREE_BYTES, LOG_BYTES, preallocate
from gateway.store.users import Users


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'devgw.db'}")
    yield made
    made.close()


def test_the_database_and_its_log_own_room(database: Database, tmp_path: Path) -> None:
    assert preallocate(database)
    with (tmp_path / "devgw.db-wal").open("rb") as log:
        assert owned_bytes(log.fileno()) >= LOG_BYTES
    database.close()
    with sqlite3.connect(tmp_path / "devgw.db") as plain:
        free = plain.execute("PRAGMA freelist_count").fetchone()[0] * plain.execute("PRAGMA page_size").fetchone()[0]
        assert plain.execute("SELECT name FROM sqlite_master WHERE name LIKE 'room%'").fetchall() == []
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()
    assert free >= FREE_BYTES // 2


def test_looking_again_changes_nothing_that_is_there(database: Database, tmp_path: Path) -> None:
    preallocate(database)
    Users(database).ensure(UserName("alice"), uid_start=1000)
    before = (tmp_path / "devgw.db").stat().st_size
    for _ in range(5):
        assert preallocate(database)
    assert (tmp_path / "devgw.db").stat().st_size == before
    assert [user.name for user in Users(database).all()] == ["alice"]


def test_ballast_is_made_given_up_only_where_the_disk_is_full_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = Ballast(tmp_path / "reserve", 1 << 20)
    assert ballast.make()
    assert not ballast.give_up()
    monkeypatch.setattr(Ballast, "_free_bytes", lambda _self: 0)
    assert ballast.give_up()
    assert not (tmp_path / "reserve").exists()
    assert not ballast.make()
    monkeypatch.undo()
    assert ballast.make()
