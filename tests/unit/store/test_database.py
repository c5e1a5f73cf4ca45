"""The store: migrations make the declared tables, one GPU has one holder, changes of access are counted."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import delete

import gateway.store
from gateway.errors import ConflictError, LeaseError, NotFoundError, StoreError
from gateway.model import Egress, Environment, EnvironmentRef, EnvironmentState, GpuUuid, Limits, PublicKey, UserName
from gateway.store.database import SCHEMA_HEAD, Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.schema import METADATA, USERS
from gateway.store.users import Users

ALICE = EnvironmentRef.parse("alice")
KEY = PublicKey("SHA256:x", "ssh-ed25519", 256, "ssh-ed25519 AAAA")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def row(ref: EnvironmentRef = ALICE) -> Environment:
    limits = Limits(memory_bytes=2**40, cpus=1.5, pids=64, shm_bytes=2**39)
    return Environment(
        ref, EnvironmentState.CREATING, "docker", "image", limits, "1", (), ("imagenet",), Egress.NONE,
        datetime.now(UTC), should_run=True,
    )  # fmt: skip


def test_migrations_make_the_declared_tables(database: Database):
    """Nothing is in one and not in the other, and the head the code knows is the last migration."""
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    migrations = Path(gateway.store.__file__).parent / "migrations"
    assert ScriptDirectory(str(migrations)).get_current_head() == SCHEMA_HEAD


def test_a_gpu_has_one_holder_whatever_is_tried_at_once(database: Database):
    """Twenty at a time ask for the same GPU; one gets it."""
    refs = [EnvironmentRef.parse(f"user-{number}") for number in range(20)]
    for ref in refs:
        Users(database).ensure(ref.user, uid_start=200000)
        EnvironmentTable(database).add(row(ref))

    def take(ref: EnvironmentRef) -> bool:
        try:
            LeaseTable(database).take(ref, [GpuUuid("GPU-1")], datetime.now(UTC))
        except LeaseError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(take, refs)) == 1


def test_a_lease_is_all_or_nothing(database: Database):
    """When one of two is gone, the other is not taken."""
    Users(database).ensure(ALICE.user, uid_start=200000)
    EnvironmentTable(database).add(row())
    leases = LeaseTable(database)
    leases.take(ALICE, [GpuUuid("GPU-1")], datetime.now(UTC))
    with pytest.raises(LeaseError):
        leases.take(ALICE, [GpuUuid("GPU-2"), GpuUuid("GPU-1")], datetime.now(UTC))
    assert [lease.gpu for lease in leases.held()] == ["GPU-1"]


def test_removing_an_environment_gives_its_gpus_back(database: Database):
    """The foreign key sees to it."""
    Users(database).ensure(ALICE.user, uid_start=200000)
    EnvironmentTable(database).add(row())
    LeaseTable(database).take(ALICE, [GpuUuid("GPU-1")], datetime.now(UTC))
    EnvironmentTable(database).remove(ALICE)
    assert LeaseTable(database).held() == []


def test_an_environment_reads_back_as_it_was_written(database: Database):
    """Also what a database has no type for: big numbers, lists, times with their zone."""
    Users(database).ensure(ALICE.user, uid_start=200000)
    EnvironmentTable(database).add(row())
    found = EnvironmentTable(database).require(ALICE)
    assert (found.limits, found.datasets, found.created_at.tzinfo) == (row().limits, ("imagenet",), UTC)
    with pytest.raises(ConflictError):
        EnvironmentTable(database).add(row())


def test_users_keep_their_uid_and_get_different_ones(database: Database):
    """One stable uid for each person."""
    users = Users(database)
    uids = [users.ensure(UserName(name), uid_start=200000).uid for name in ("alice", "bob", "alice")]
    assert uids == [200000, 200001, 200000]


def test_what_a_running_gateway_must_see_raises_the_revision(database: Database):
    """Keys and doors do, the note of a login does not."""
    users = Users(database)
    users.ensure(ALICE.user, uid_start=200000)
    seen = [database.revision()]
    for change in (
        lambda: users.add_key(ALICE.user, KEY),
        lambda: users.key_used(ALICE.user, KEY.fingerprint),
        lambda: users.set_disabled(ALICE.user, disabled=True),
        lambda: users.remove_key(ALICE.user, KEY.fingerprint),
    ):
        change()
        seen.append(database.revision())
    assert [after - before for before, after in pairwise(seen)] == [1, 0, 1, 1]


def test_absent_things_are_named(database: Database):
    """A hint says what to type."""
    for ask in (
        lambda: Users(database).require("carol"),
        lambda: EnvironmentTable(database).require(ALICE),
        lambda: Users(database).add_key(UserName("carol"), KEY),
    ):
        with pytest.raises(NotFoundError) as missing:
            ask()
        assert "devgw" in missing.value.hint


def test_a_database_that_is_none_is_named(tmp_path: Path):
    """A text file in its place is not overwritten."""
    (tmp_path / "devgw.db").write_text("this is not a database, but it may be precious " * 40)
    with pytest.raises(StoreError, match=r"devgw\.db"):
        Database(f"sqlite:///{tmp_path / 'devgw.db'}").revision()
    assert (tmp_path / "devgw.db").read_text().startswith("this is not")


def test_a_reader_does_not_wait_for_a_writer(database: Database):
    """A login looks users up while somebody else is in the middle of a change, and sees what was before it."""
    users = Users(database)
    users.ensure(ALICE.user, uid_start=200000)
    before = database.revision()
    with database.transaction() as connection, ThreadPoolExecutor(1) as other:
        connection.execute(delete(USERS))
        found = other.submit(users.get, ALICE.user).result(timeout=5)
        assert other.submit(database.revision).result(timeout=5) == before
    assert found is not None
    assert users.get(ALICE.user) is None


def test_a_deletion_that_was_begun_is_never_taken_back(database: Database):
    """Neither by a state that somebody else stores late, nor its purge by a deletion that keeps the files."""
    table = EnvironmentTable(database)
    Users(database).ensure("alice", uid_start=200000)
    table.add(row())
    table.begin_delete(ALICE, purge=True)
    table.set_state(ALICE, EnvironmentState.STOPPED, should_run=False)
    assert table.require(ALICE).state is EnvironmentState.DELETING
    table.begin_delete(ALICE, purge=False)
    found = table.require(ALICE)
    assert (found.state, found.purges) == (EnvironmentState.DELETING, True)
