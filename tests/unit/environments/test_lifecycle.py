"""Create, start, stop, delete under failures and crashes at every step: nothing half-made, nothing leaked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.reconcile import Reconciler
from gateway.environments.shared_volumes import SharedDirectory, groups_of
from gateway.errors import ConflictError, EngineError, LeaseError
from gateway.gpus.leases import Leases
from gateway.gpus.reading import Reading
from gateway.model import Actor, Egress, Environment, EnvironmentRef, EnvironmentState, Gpu, GpuUuid, Limits, Mount
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.users import Users
from tests.cli.services import AnsweringEngine
from tests.fakes.engine import Crash, FakeDaemon
from tests.fakes.recorder import MemoryRecorder

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")
GPU = GpuUuid("GPU-00000000-0000-4000-8000-000000000000")
STEPS = ("create.container", "create.container/done", "start.process", "start.process/done")


class OneGpu:
    """An inventory of a single GPU."""

    def read(self) -> Reading:
        return Reading("nvml", (Gpu(GPU, "NVIDIA A100", 80 * 2**30, "0"),))


class Given:
    """Gives everybody the same."""

    def __init__(self, volumes: list[SharedDirectory]) -> None:
        self._volumes = volumes

    def given(self, _user: str) -> list[SharedDirectory]:
        return self._volumes

    def decide(self, _ref: EnvironmentRef, _actor: Actor) -> list[SharedDirectory]:
        return self._volumes


@dataclass
class Site:
    """A gateway's lifecycle on a fake daemon; `revive` makes a new process of it."""

    root: Path
    database_url: str = ""
    daemon: FakeDaemon = field(default_factory=lambda: FakeDaemon(gpus=frozenset({GPU})))
    given: list[SharedDirectory] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.daemon.add_image("image", {})
        self.revive()

    def revive(self) -> None:
        """Start over from what is on disk and in the daemon, as a new process would."""
        database = Database(self.database_url or f"sqlite:///{self.root / 'devgw.db'}")
        self.engine = AnsweringEngine(self.daemon)
        self.table, self.leases, self.users = EnvironmentTable(database), LeaseTable(database), Users(database)
        settings = LifecycleSettings(
            self.root, {}, lambda: "ssh-ed25519 CA", read_only_root=True, start_timeout=5, stop_timeout=1,
            shared=Given(self.given),
        )  # fmt: skip
        leasing = Leases(self.leases, OneGpu())
        self.recorder = MemoryRecorder()
        self.environments = EnvironmentLifecycle(
            self.table, self.users, lambda: self.engine, leasing, settings, self.recorder
        )

    def create(self, ref: EnvironmentRef = ALICE) -> Environment:
        """Create an environment with the one GPU."""
        self.users.ensure(ref.user, uid_start=200000)
        limits = Limits(2**30, 1, 64, 2**29)
        row = Environment(
            ref, EnvironmentState.CREATING, "fake", "image", limits, "1", (), (), Egress.NONE, datetime.now(UTC),
            should_run=True,
        )  # fmt: skip
        return self.environments.create(row, "$2b$hash")

    def reconcile(self) -> dict[EnvironmentRef, str]:
        """Run the reconciler; return each finding's code."""
        found = Reconciler(self.table, self.leases, self.engine, self.environments).run()
        return {finding.ref: finding.code for finding in found}

    def held(self) -> dict[GpuUuid, EnvironmentRef]:
        return {lease.gpu: lease.ref for lease in self.leases.held()}


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    yield made
    made.engine.close()


def raising(step: str, error: BaseException) -> Callable[[str], None]:
    """Return a hook that fails once, at this step."""
    pending = [error]

    def hook(now: str) -> None:
        if now == step and pending:
            raise pending.pop()

    return hook


@pytest.mark.parametrize("step", STEPS)
def test_a_create_that_fails_gives_everything_back(site: Site, step: str):
    """No row, no lease, no container, no directory; and the next create succeeds."""
    site.daemon.at_step = raising(step, EngineError("engine.failed", "the engine failed"))
    with pytest.raises(EngineError):
        site.create()
    assert (site.table.all(), site.held(), site.daemon.containers) == ([], {}, {})
    assert not (site.root / "environments" / "alice").exists()
    assert not (site.root / "volumes" / "alice").exists()
    assert site.create().gpus == (GPU,)


@pytest.mark.parametrize("step", STEPS)
def test_a_create_that_was_killed_is_rolled_back_at_the_next_start(site: Site, step: str):
    """Kill -9 at any step; the reconciler of the next process leaves nothing, and the GPU is free."""
    site.daemon.at_step = raising(step, Crash())
    with pytest.raises(Crash):
        site.create()
    site.daemon.at_step = lambda _step: None
    site.revive()
    site.reconcile()
    assert (site.table.all(), site.held(), site.daemon.containers) == ([], {}, {})


def test_a_failed_start_frees_the_gpu_and_keeps_the_environment(site: Site):
    """The person's files are not the price of a broken start."""
    site.create()
    site.environments.stop(ALICE)
    site.daemon.at_step = raising("start.process", EngineError("engine.failed", "the engine failed"))
    with pytest.raises(EngineError):
        site.environments.start(ALICE)
    assert site.held() == {}
    assert site.table.require(ALICE).state is EnvironmentState.FAILED
    assert site.environments.start(ALICE).gpus == (GPU,)


def test_a_gpu_is_held_while_its_environment_runs_and_no_longer(site: Site):
    """Stop gives it back; meanwhile somebody else may have it."""
    site.create(ALICE)
    with pytest.raises(LeaseError):
        site.create(BOB)
    assert site.table.get(BOB) is None
    site.environments.stop(ALICE)
    site.create(BOB)
    assert site.held() == {GPU: BOB}
    with pytest.raises(LeaseError):
        site.environments.start(ALICE)


def test_a_running_environment_is_adopted_not_restarted(site: Site):
    """A new gateway process finds it, and its lease, as they were."""
    site.create()
    container = next(iter(site.daemon.containers.values()))
    site.revive()
    assert site.reconcile() == {ALICE: "environment.adopted"}
    assert next(iter(site.daemon.containers.values())) is container
    assert site.held() == {GPU: ALICE}


def test_what_should_run_and_does_not_is_started_again(site: Site):
    """After a reboot the containers are dead; the environments come back, stopped ones stay stopped."""
    site.create()
    site.engine.end(ALICE, 137)
    site.engine.close()
    site.revive()
    assert site.reconcile() == {ALICE: "environment.started"}
    site.environments.stop(ALICE)
    site.revive()
    assert site.reconcile() == {}


def test_an_environment_unknown_to_the_store_is_reported_and_left_alone(site: Site):
    """A store restored from an old backup is no reason to kill somebody's training."""
    site.create()
    site.table.remove(ALICE)
    site.revive()
    assert site.reconcile() == {ALICE: "environment.orphaned"}
    assert len(site.daemon.containers) == 1


def test_delete_of_a_running_environment_asks_for_force(site: Site):
    """Nothing is lost by a slip; with force the files stay, with purge they go."""
    site.create()
    note = site.root / "volumes" / "alice" / "main" / "home" / "note"
    note.write_text("precious")
    with pytest.raises(ConflictError):
        site.environments.delete(ALICE)
    site.environments.delete(ALICE, force=True)
    assert note.read_text() == "precious"
    site.create()
    site.environments.delete(ALICE, force=True, purge=True)
    assert not note.exists()


def test_files_of_an_environment_belong_to_whom_they_should(site: Site):
    """The host key and the password hash are readable by the environment alone; the parents by the gateway alone."""
    site.create()
    config = site.root / "environments" / "alice" / "main" / "config"
    assert {oct((config / name).stat().st_mode & 0o777) for name in ("ssh_host_ed25519_key", "notebook_password")} == {
        "0o400"
    }
    assert (config / "notebook_password").read_text() == "$2b$hash\n"
    assert "alice:x:" in (config / "passwd").read_text()


def test_a_lease_is_journaled_when_it_begins_and_ends_and_not_in_between(site: Site):
    """With who, which GPU and why; a start that keeps what it holds is no new lease."""
    bob = Actor("admin", "bob")
    site.create()
    site.environments.recreate(ALICE)
    site.environments.stop(ALICE, bob)
    site.environments.start(ALICE, actor=bob)
    site.environments.delete(ALICE, force=True)
    told = [(event.code, event.actor.name, event.detail["gpus"], event.reason) for event in site.recorder.events]
    assert told == [
        ("lease.granted", "devgw", GPU, "asked for 1"),
        ("lease.released", "bob", GPU, "the environment was stopped"),
        ("lease.granted", "bob", GPU, "asked for 1"),
        ("lease.released", "devgw", GPU, "the environment was deleted"),
    ]


def test_a_start_takes_the_shared_volumes_that_the_policy_gives_then(site: Site, tmp_path: Path):
    """Mounted, with their groups, which have a name inside; what is given no more is there no more."""
    given = site.given
    given.append(SharedDirectory("project-x", tmp_path, 1_200_000, is_writable=False))
    site.create()
    group = site.root / "environments/alice/main/config/group"
    spec = site.environments.spec_of(ALICE)
    assert Mount(tmp_path, "/shared/project-x", read_only=True) in spec.mounts
    assert spec.groups == groups_of(given)
    assert "shared-project-x:x:1200000:alice\n" in group.read_text()
    given.clear()
    site.environments.stop(ALICE)
    site.environments.start(ALICE)
    assert "/shared/project-x" not in {mount.target for mount in site.environments.spec_of(ALICE).mounts}
    assert "shared" not in group.read_text()
