"""A site whose state lies in PostgreSQL: backed up while it serves, restored into an empty database, or refused."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.site import Site
from tests.support.postgresql_server import PostgresqlServer, postgresql_server

SECRET = "s3cret-of-the-database"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with postgresql_server(password=SECRET) as running:
        yield running


@pytest.fixture
def kept(site: Site, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site in a database of its own, with alice and bob, backed up into `backup`."""
    monkeypatch.setenv("DEVGW_DATABASE_URL", server.empty_database())
    site.run("devgw init -q")
    for user in ("alice", "bob"):
        assert site.run(f"devgw create {user} --key {user}.pub").exit_code == 0
    outcome = site.run("devgw backup backup")
    assert outcome.exit_code == 0, outcome.stderr
    return site.directory / "backup"


def lose(site: Site) -> None:
    for name in ("config", "state", "run"):
        shutil.rmtree(site.directory / name, ignore_errors=True)


def test_a_lost_site_is_restored_into_an_empty_database(
    site: Site, kept: Path, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users, keys, environments and the journal are as they were; the backup holds no password of the database."""
    before = [site.run(f"devgw {words}").stdout for words in ("user list", "key list alice", "show alice -o json")]
    assert all(SECRET.encode() not in file.read_bytes() for file in kept.rglob("*") if file.is_file())
    lose(site)
    monkeypatch.setenv("DEVGW_DATABASE_URL", server.empty_database())
    outcome = site.run("devgw restore backup")
    assert outcome.exit_code == 0, outcome.stderr
    after = [site.run(f"devgw {words}").stdout for words in ("user list", "key list alice", "show alice -o json")]
    assert after == before
    assert site.run("devgw audit verify").exit_code == 0
    assert "environment.created" in site.run("devgw audit log").stdout
    assert site.run("devgw stop bob").exit_code == 0


def test_a_database_with_tables_is_left_alone(site: Site, kept: Path) -> None:
    """Not even --force empties it: it may be another site's."""
    lose(site)
    for flag in ("", " --force"):
        outcome = site.run(f"devgw restore backup{flag}")
        assert (outcome.exit_code, "has tables already" in outcome.stderr) == (6, True), outcome.stderr
        assert SECRET not in outcome.stderr
    assert not list((site.directory / "state").glob("**/segment-*"))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_dump_changes_nothing(
    site: Site, kept: Path, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Neither where the manifest tells it, nor where whoever damaged it wrote the manifest anew."""
    dumped = kept / "database.pgdump"
    content = dumped.read_bytes()
    dumped.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\0" * len(content))
    _agree(kept)
    lose(site)
    url = server.empty_database()
    monkeypatch.setenv("DEVGW_DATABASE_URL", url)
    outcome = site.run("devgw restore backup")
    assert outcome.exit_code == 1
    assert "error: the backup's database cannot be used: pg_restore: error:" in outcome.stderr
    assert _tables_in(server, url) == []


def test_a_backup_of_the_other_kind_is_refused(
    site: Site, kept: Path, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(site)
    monkeypatch.delenv("DEVGW_DATABASE_URL")
    outcome = site.run("devgw restore backup")
    assert outcome.exit_code == 1
    assert "the backup's database is of postgresql, and database_url names one of sqlite" in outcome.stderr
    assert "DEVGW_DATABASE_URL" in outcome.stderr
    assert not (site.directory / "state" / "devgw.db").exists()
    site.run("devgw init -q")
    assert site.run("devgw backup of-sqlite").exit_code == 0
    assert sqlite3.connect(site.directory / "of-sqlite" / "database.sqlite").execute("SELECT 1").fetchone() == (1,)
    lose(site)
    monkeypatch.setenv("DEVGW_DATABASE_URL", server.empty_database())
    assert "the backup's database is of sqlite" in site.run("devgw restore of-sqlite").stderr


def test_a_server_that_is_down_leaves_no_backup(
    site: Site, kept: Path, monkeypatch: pytest.MonkeyPatch, server: PostgresqlServer
) -> None:
    monkeypatch.setenv("DEVGW_DATABASE_URL", server.url("no_such_database"))
    outcome = site.run("devgw backup next")
    assert (outcome.exit_code, "no_such_database" in outcome.stderr) == (1, True)
    assert SECRET not in outcome.stderr
    assert not (site.directory / "next").exists()


def test_without_the_tool_it_is_said_what_to_install(
    site: Site, kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = site.run("devgw backup next")
    assert (outcome.exit_code, "pg_dump is not there" in outcome.stderr) == (1, True)
    assert "apt-get install postgresql-client" in outcome.stderr


def test_no_database_leaves_it_out(site: Site, kept: Path) -> None:
    assert site.run("devgw backup next --no-database").exit_code == 0
    assert not (site.directory / "next" / "database.pgdump").exists()
    assert list((site.directory / "next" / "state" / "gateways").glob("*/journal/segment-*"))


def test_a_gateways_own_directory_may_lie_elsewhere(
    site: Site, kept: Path, server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its journal is taken from there, and put back there."""
    monkeypatch.setenv("DEVGW_SITE_GATEWAYS_DIR", str(tmp_path / "shared"))
    assert site.run("devgw stop bob").exit_code == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "shared").glob("*/journal/segment-*")}
    assert site.run("devgw backup next").exit_code == 0
    lose(site)
    shutil.rmtree(tmp_path / "shared")
    monkeypatch.setenv("DEVGW_DATABASE_URL", server.empty_database())
    outcome = site.run("devgw restore next")
    assert outcome.exit_code == 0, outcome.stderr
    [segment] = (tmp_path / "shared").glob("*/journal/segment-*")
    assert segment.read_bytes().startswith(written[segment.name])
    assert "journal     ok" in site.run("devgw audit verify").stdout  # of the journal before it was moved, nothing
    assert not (site.directory / "state" / "gateways").exists()


def _tables_in(server: PostgresqlServer, url: str) -> list[tuple[object, ...]]:
    name = url.partition("@/")[2].partition("?")[0]
    return server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)


def _agree(kept: Path) -> None:
    """Write the dump's size and digest into the manifest, as whoever forges a backup would."""
    import hashlib
    import json

    manifest = json.loads((kept / "manifest.json").read_text())
    content = (kept / "database.pgdump").read_bytes()
    manifest["files"]["database.pgdump"] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (kept / "manifest.json").write_text(json.dumps(manifest))
