"""What an administrator may do, each act on real tables and the fake engine: no App is made for it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.doctor.doctor import Sources
from gateway.engines.image_builder import BuildProgress
from gateway.errors import ConflictError, DeniedError, EngineError, NotFoundError, QueuedError
from gateway.gate import Gate
from gateway.gpus.lease_extension import LeaseExtension
from gateway.gpus.leases import Leases
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.usage import Period
from gateway.gpus.waiting import Waiting
from gateway.images.build import ImageRequest, find_image_folder, plan_build
from gateway.images.channels import Channels
from gateway.model import Actor, Environment, EnvironmentRef, Limits, PublicKey, UserName
from gateway.operations.diagnose import DiagnoseOperations, Inside, held_leases
from gateway.operations.environments import CreateOrder, EnvironmentOperations, EnvironmentParts
from gateway.operations.gpus import GpuOperations, count_usage
from gateway.operations.images import ImageOperations
from gateway.operations.keys import KeyOperations
from gateway.operations.recorded import Recorded
from gateway.operations.run import RunOperations, RunParts
from gateway.operations.sessions import SessionOperations
from gateway.operations.users import UserOperations
from gateway.process.ownership import is_alive, this_process
from gateway.store.images import ImageTable
from gateway.store.queue import QueueTable
from gateway.store.sessions import LiveSession, LiveSessionTable
from gateway.store.usage import UsageTable
from policies.requests import Decision, Request
from tests.fakes.image_builder import FakeImageBuilder
from tests.fakes.image_store import FakeImageStore
from tests.fakes.recorder import MemoryRecorder
from tests.unit.environments.test_lifecycle import ALICE, BOB, GPU, OneGpu, Site

ROOT = Actor("admin", "root")
KEY = PublicKey("SHA256:" + "k" * 43, "ssh-ed25519", 256, "ssh-ed25519 AAAA", "laptop")


class Office:
    """The operations of one administrator over one site; `allowed` is what the policy says to everything."""

    def __init__(self, site: Site) -> None:
        self.site, self.allowed = site, True
        self.journal = MemoryRecorder()
        self.recorded = Recorded(self.journal, ROOT)
        self.gate = Gate(self._decide, self.journal)
        database = site.table._database
        self.leases = Leases(site.leases, OneGpu())
        self.keys = KeyOperations(site.users, self.recorded)
        self.users = UserOperations(site.users, self.keys, self.recorded, uid_start=200_000)
        quarantines = Quarantines(site.leases, OneGpu())
        self.gpus = GpuOperations(site.table, LeaseExtension(site.leases, self.leases), quarantines, self.recorded)
        self.live = LiveSessionTable(database, is_alive)
        self.sessions = SessionOperations(self.live, self.recorded)
        self.images = FakeImageStore(site.daemon)
        self.image_table = ImageTable(database)
        self.channels = Channels(self.image_table, lambda name: site.engine.image(name), lambda: self.images)  # noqa: PLW0108 - it is made anew
        waiting = Waiting(
            QueueTable(database), site.leases, self.leases, pause=lambda _seconds: site.environments.stop(ALICE)
        )
        parts = EnvironmentParts(
            users=site.users,
            table=site.table,
            lifecycle=site.environments,
            engine=lambda: site.engine,
            waiting=waiting,
            reap=lambda _ref: True,
            uid_start=200_000,
            images=self.channels,
        )
        self.environments = EnvironmentOperations(parts, self.gate, self.keys, self.recorded)

    def _decide(self, _request: Request) -> Decision:
        return Decision(self.allowed, "test", "as the test says")

    def order(self, ref: EnvironmentRef, gpu: str = "1") -> CreateOrder:
        limits = Limits(2**30, 1, 64, 2**29)
        return CreateOrder(ref, "image", limits, gpu, keys=(KEY,), bcrypt_hash=lambda: "$2b$hash")

    def told(self) -> list[str]:
        return self.journal.codes()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    site = Site(tmp_path)
    yield Office(site)
    site.engine.close()


def test_a_create_is_decided_made_and_recorded_in_this_order(office: Office) -> None:
    """Under the administrator's name; the user and the key are records of their own."""
    office.environments.create(office.order(ALICE))
    assert office.told() == ["create.allowed", "environment.created", "user.created", "key.added"]
    assert {event.actor for event in office.journal.events} == {ROOT}
    assert office.site.table.require(ALICE).gpus == (GPU,)


def test_a_create_that_the_policy_refuses_makes_nothing(office: Office) -> None:
    office.allowed = False
    with pytest.raises(DeniedError):
        office.environments.create(office.order(ALICE))
    assert office.told() == ["create.denied"]
    assert (office.site.table.all(), office.site.users.all()) == ([], [])


def test_a_create_that_fails_is_recorded_with_the_reason_and_forgets_the_new_user(office: Office) -> None:
    def fail(step: str) -> None:
        if step == "create.container":
            raise EngineError("engine.failed", "the engine failed")

    office.site.daemon.at_step = fail
    with pytest.raises(EngineError):
        office.environments.create(office.order(ALICE))
    assert office.told()[-1] == "environment.failed"
    assert office.journal.events[-1].reason == "environment.created: the engine failed"
    assert office.site.users.all() == []


def test_who_waits_is_recorded_and_served_when_the_gpu_is_free(office: Office) -> None:
    """Alice stops while bob waits; without waiting he is told so at once."""
    office.environments.create(office.order(ALICE))
    with pytest.raises(QueuedError):
        office.environments.create(office.order(BOB))
    office.environments.create(office.order(BOB), wait=True)
    assert "lease.queued" in office.told()
    assert office.site.table.require(BOB).gpus == (GPU,)


def test_an_environment_is_stopped_started_and_deleted_with_a_record_each(office: Office) -> None:
    office.environments.create(office.order(ALICE))
    office.environments.stop(ALICE)
    office.environments.start(ALICE)
    office.environments.set_password(ALICE, "correct horse battery")
    office.environments.delete(ALICE, force=True, purge=True)
    assert office.told()[4:] == [
        "environment.stopped",
        "environment.started",
        "password.changed",
        "environment.deleted",
    ]
    assert office.journal.events[-1].detail == {"purged": True}


def test_a_key_is_let_in_once_and_shut_out(office: Office) -> None:
    office.site.users.ensure(UserName("alice"), uid_start=200_000)
    office.keys.add(UserName("alice"), KEY)
    with pytest.raises(ConflictError):
        office.keys.add(UserName("alice"), KEY)
    office.keys.add_if_new(UserName("alice"), KEY)
    office.keys.remove(UserName("alice"), KEY.fingerprint)
    with pytest.raises(NotFoundError):
        office.keys.remove(UserName("alice"), KEY.fingerprint)
    assert office.told() == ["key.added", "key.failed", "key.removed"]


def test_a_user_is_made_known_once_with_keys(office: Office) -> None:
    """Whoever is known already is left as they are, and a key that is given twice is one."""
    alice = UserName("alice")
    assert office.users.add(alice, [KEY, KEY]).uid == 200_000
    assert [key.fingerprint for key in office.site.users.keys(alice)] == [KEY.fingerprint]
    with pytest.raises(ConflictError):
        office.users.add(alice, [])
    assert office.users.add(UserName("bob"), []).uid == 200_001
    assert office.told() == ["user.created", "key.added", "user.failed", "user.created"]


def test_a_user_is_shut_out_and_let_in_again(office: Office) -> None:
    office.site.users.ensure(UserName("alice"), uid_start=200_000)
    assert office.users.disable(UserName("alice")).disabled
    assert not office.users.enable(UserName("alice")).disabled
    with pytest.raises(NotFoundError):
        office.users.disable(UserName("nobody"))
    assert office.told() == ["user.disabled", "user.enabled"]


def test_a_gpu_goes_out_of_use_and_comes_back(office: Office) -> None:
    office.gpus.quarantine(GPU, "it is hot")
    office.gpus.lift(GPU)
    with pytest.raises(ConflictError):
        office.gpus.lift(GPU)
    assert office.told() == ["gpu.quarantined", "gpu.restored", "gpu.failed"]


def test_a_lease_without_an_end_is_not_extended_and_the_failure_is_recorded(office: Office) -> None:
    office.environments.create(office.order(ALICE))
    with pytest.raises(ConflictError):
        office.gpus.extend(ALICE, 3600)
    office.site.leases.set_end(ALICE, datetime.now(UTC) + timedelta(hours=1))
    assert office.gpus.extend(ALICE, 3600) > datetime.now(UTC) + timedelta(hours=1.9)
    assert office.told()[-2:] == ["lease.failed", "lease.extended"]


def test_hours_are_counted_of_leases_that_go_on(office: Office) -> None:
    office.environments.create(office.order(ALICE))
    now = datetime.now(UTC)
    period = Period(now - timedelta(hours=1), now + timedelta(hours=1), now + timedelta(hours=1))
    (line,) = count_usage(office.site.leases, UsageTable(office.site.table._database), period, "user")
    assert line.key == "alice"
    assert line.leased_seconds == pytest.approx(3600, abs=60)


def test_a_connection_is_asked_to_end_with_a_record_each(office: Office) -> None:
    session = LiveSession("c1", "alice", "SHA256:k", "192.0.2.7", "alice", (), 0, 0, datetime.now(UTC))
    office.live.publish(this_process(), [session], [], [])
    office.sessions.kill(office.live.all(), "maintenance")
    assert office.live.to_end(this_process()) == {"c1": "ended by an administrator: maintenance"}
    assert office.told() == ["session.killed"]


def test_a_built_image_is_recorded_and_one_that_is_there_is_not(office: Office) -> None:
    """A build that fails is recorded too."""
    request, folder = ImageRequest(base="debian:12-slim"), find_image_folder()
    plan = plan_build(request, folder, folder.parent / "runner")
    builder = FakeImageBuilder(office.site.daemon)
    operations = ImageOperations(
        lambda: builder,
        lambda: office.images,
        office.channels,
        office.image_table,
        office.recorded,
    )
    shown: list[BuildProgress] = []
    assert operations.build(request, plan, shown.append).image.is_new
    assert not operations.build(request, plan, shown.append).image.is_new
    assert office.told() == ["image.built"]
    assert shown


def test_what_runs_inside_is_decided_first(office: Office) -> None:
    """Nobody is dialled where the policy says no; an environment that is not running is not started to be read."""
    office.environments.create(office.order(ALICE))

    def start(ref: EnvironmentRef, _show: object) -> Environment:
        return office.environments.start(ref)

    parts = RunParts(office.site.table, office.site.environments, start, lambda: Path("/none"))
    operations = RunOperations(parts, office.gate, office.recorded)
    office.allowed = False
    with pytest.raises(DeniedError):
        operations.run(ALICE, ["train.py"], lambda _line: None)
    office.allowed = True
    office.environments.stop(ALICE)
    with pytest.raises(EngineError, match="does not answer"):
        operations.logs(ALICE, [])
    assert office.site.table.require(ALICE).gpus == ()


def test_a_look_into_an_environment_is_recorded_and_one_at_the_host_is_not(office: Office) -> None:
    """The environment is its user's."""
    environment = office.environments.create(office.order(ALICE))
    before = len(office.journal.events)
    seen: list[EnvironmentRef] = []

    def refuse(ref: EnvironmentRef, _arguments: object) -> object:
        seen.append(ref)
        raise EngineError("environment.unreachable", "it does not answer")

    operations = DiagnoseOperations(_sources(office, refuse), lambda: office.recorded)
    operations.host()
    assert len(office.journal.events) == before
    operations.environment(environment)
    assert [event.code for event in office.journal.events[before:]] == ["admin.acted"]
    assert set(seen) == {ALICE}


def test_an_environment_that_is_stopped_cannot_be_asked(office: Office) -> None:
    office.environments.create(office.order(ALICE))
    office.environments.stop(ALICE)
    with pytest.raises(EngineError, match="does not answer"):
        Inside(office.site.environments, lambda: Path("/none")).ask(ALICE, ["true"])


def test_leases_are_not_looked_for_in_a_database_that_is_not_there(tmp_path: Path) -> None:
    """Before `devgw init` the doctor makes none."""
    from gateway.store.database import Database
    from gateway.store.leases import LeaseTable

    database = Database(f"sqlite:///{tmp_path}/none.db")
    assert held_leases(database, LeaseTable(database)) == {}
    assert not (tmp_path / "none.db").exists()


def _sources(office: Office, ask_inside: object) -> Sources:
    from gateway.config import load_settings
    from gateway.gpus.sensors import NoSensors

    root = office.site.root
    settings = load_settings({f"DEVGW_{name}_DIR": str(root / name) for name in ("CONFIG", "STATE", "RUN", "CACHE")})

    def no_engine() -> object:
        raise EngineError("engine.unreachable", "there is none")

    return Sources(
        settings=settings,
        engine=no_engine,  # type: ignore[arg-type]
        sensors=NoSensors(),
        leases=dict,
        policy_file=root / "policy.toml",
        load_policy=lambda: None,
        ask_inside=ask_inside,  # type: ignore[arg-type]
    )
