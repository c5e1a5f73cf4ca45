"""A gateway on a fake daemon in which other processes act, fail and are killed at any step of an operation.

A step is one act of the engine or one transaction of the store; before and after each, something may happen.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import ClassVar

from sqlalchemy import Connection, event

from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.locks import Locks
from gateway.environments.reconcile import Reconciler
from gateway.errors import ConflictError, DevgwError, EngineError
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.reading import Reading
from gateway.model import Egress, Environment, EnvironmentRef, EnvironmentState, Gpu, GpuUuid, Limits
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.users import Users
from tests.fakes.engine import Crash, FakeContainer, FakeDaemon
from tests.fakes.recorder import MemoryRecorder
from tests.support.databases import Databases

GPUS = tuple(Gpu(GpuUuid(f"GPU-{n:08d}-0000-4000-8000-000000000000"), "NVIDIA H200", 1, str(n)) for n in range(8))
REFS = tuple(EnvironmentRef.parse(f"user{n}") for n in range(50))
_NEVER_ENDED = frozenset({EnvironmentState.CREATING, EnvironmentState.DELETING})
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Act:
    """One operation of one process. At its step `at` it fails, is killed, or lets another process act meanwhile."""

    kind: str
    who: int
    gpus: str = "1"
    at: int = -1
    happens: "str | Act" = ""


class SteppedDatabase(Database):
    """The real store, with a step before and after each transaction; what is lost with a power cut is not tried."""

    def __init__(self, url: str, daemon: FakeDaemon) -> None:
        super().__init__(url)
        self._daemon = daemon
        if self.path is not None:
            event.listen(self._engine, "connect", lambda raw, _record: raw.execute("PRAGMA synchronous=OFF"))

    @contextmanager
    def transaction(self, *, changes_access: bool = False) -> Iterator[Connection]:
        self._daemon.at_step("store")
        with super().transaction(changes_access=changes_access) as connection:
            yield connection
        self._daemon.at_step("store/done")


class OneThreadLocks(Locks):
    """The real locks, where those who wait and those they wait for are one thread: a waiting process is killed."""

    @contextmanager
    def hold(self, ref: EnvironmentRef, *, wait: bool = True) -> Iterator[None]:
        waiting = super().hold(ref, wait=False)
        try:
            waiting.__enter__()
        except ConflictError as exc:
            if wait:
                raise Crash from exc
            raise
        with ExitStack() as held:
            held.push(waiting)
            yield


class EightGpus:
    """A host whose GPUs are always the same."""

    def read(self) -> Reading:
        return Reading("nvml", GPUS)


@dataclass
class Host:
    """Daemon and disk, which outlive every process, and what must hold of them at any moment."""

    databases: Databases
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None)))
    daemon: FakeDaemon = field(default_factory=lambda: FakeDaemon(gpus=frozenset(gpu.uuid for gpu in GPUS)))
    of_nobody: ClassVar[frozenset[str]] = frozenset({"restart", "tidy"})
    busy: set[EnvironmentRef] = field(default_factory=set)
    ended: list[EnvironmentRef] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.daemon.add_image("image", {})
        self.url = self.databases.database()
        self.database = SteppedDatabase(self.url, self.daemon)
        self.engine = self.daemon.connect()
        self.table, self.ledger, self.users = (
            EnvironmentTable(self.database), LeaseTable(self.database), Users(self.database),
        )  # fmt: skip
        settings = LifecycleSettings(
            self.root, {}, lambda: "ssh-ed25519 CA", read_only_root=True, start_timeout=5, stop_timeout=1
        )
        around = Surroundings(containers=self._in_containers, out_of_reach=self.out_of_reach)
        leases = Leases(self.ledger, EightGpus(), around=around)
        self.environments = EnvironmentLifecycle(
            self.table, self.users, lambda: self.engine, leases, settings, MemoryRecorder()
        )
        self.environments.locks = OneThreadLocks(self.root / "locks")
        self.reconciler = Reconciler(self.table, self.ledger, self.engine, self.environments)

    def close(self) -> None:
        """Remove everything."""
        self.database.close()
        self.databases.give_back(self.url)
        shutil.rmtree(self.root)

    def run(self, act: Act) -> int:
        """Let a process act and return its number of steps; what it is refused or dies of is its own affair."""
        ref = REFS[act.who]
        mine = set() if act.kind in self.of_nobody else {ref}
        if mine & self.busy:
            return 0  # it would wait for the other's lock
        steps = count()
        before, ended_before = self.running(), len(self.ended)
        self.ended += mine if act.kind in {"stop", "delete", "purge", "dies"} else ()
        self.busy |= mine
        outer, self.daemon.at_step = self.daemon.at_step, self._hook(act, steps)
        try:
            self._do(act, ref)
        except (DevgwError, Crash):
            pass
        finally:
            self.daemon.at_step = outer
            self.busy -= mine
        after = self.running()
        lost = {ref for ref, container in before.items() if after.get(ref) is not container}
        assert lost <= set(self.ended[ended_before:]), f"{act} cost {lost} their running environment"
        return next(steps)

    def running(self) -> dict[EnvironmentRef, FakeContainer]:
        """Return the environments that run; those half-made or being deleted are nobody's yet, or no more."""
        unborn = {ref for ref, state in self._states().items() if state in _NEVER_ENDED}
        return {
            ref: container
            for (_gateway, ref), container in self.daemon.containers.items()
            if container.running and ref not in unborn
        }

    def require_one_hand(self) -> None:
        """Invariant 11, at any step of anybody."""
        held = [
            gpu for container in self.daemon.containers.values() if container.running for gpu in container.spec.gpus
        ]
        assert len(held) == len(set(held)), f"a GPU in two hands: {sorted(held)}"

    def require_settled(self) -> None:
        """What holds when nobody is at work and the reconciler has run: ledger, labels and store say the same."""
        labels = {gpu: ref for ref, container in self.running().items() for gpu in container.spec.gpus}
        assert {lease.gpu: lease.ref for lease in self.ledger.held()} == labels
        states = self._states()
        assert not set(states.values()) & _NEVER_ENDED
        assert {ref for ref, state in states.items() if state is EnvironmentState.RUNNING} == set(self.running())
        assert {ref for _gateway, ref in self.daemon.containers} == set(self.running())

    def _do(self, act: Act, ref: EnvironmentRef) -> None:
        match act.kind:
            case "create":
                self.users.ensure(ref.user, uid_start=200000)
                self.environments.create(_row(ref, act.gpus), "$2b$hash")
            case "start":
                self.environments.start(ref)
            case "stop":
                self.environments.stop(ref)
            case "delete":
                self.environments.delete(ref, force=True)
            case "purge":
                self.environments.delete(ref, force=True, purge=True)
            case "dies" if (container := self.running().get(ref)) is not None:
                container.running, container.exit_code = False, 137
            case "tidy":
                list(self.reconciler.tidy())
            case "restart":
                self.reconciler = Reconciler(self.table, self.ledger, self.engine, self.environments)
                list(self.reconciler.run())
            case "forget":
                self.ledger.release(ref)

    def _hook(self, act: Act, steps: "count[int]") -> Callable[[str], None]:
        def at_step(_step: str) -> None:
            self.require_one_hand()
            if next(steps) != act.at:
                return
            if isinstance(act.happens, Act):
                self.run(act.happens)
            elif act.happens == "fails":
                raise EngineError("engine.failed", "the engine failed")
            elif act.happens == "killed":
                raise Crash

        return at_step

    def _states(self) -> dict[EnvironmentRef, EnvironmentState]:
        outer, self.daemon.at_step = self.daemon.at_step, lambda _step: None
        try:
            return {row.ref: row.state for row in self.table.all()}
        finally:
            self.daemon.at_step = outer

    def out_of_reach(self) -> dict[GpuUuid, str]:
        """Return the GPUs of nodes that take nothing new; one host has none."""
        return {}

    def _in_containers(self) -> dict[GpuUuid, EnvironmentRef]:
        return {gpu: observed.ref for observed in self.engine.observe_all() for gpu in observed.gpus}


def _row(ref: EnvironmentRef, gpus: str) -> Environment:
    limits = Limits(2**30, 1, 64, 2**29)
    return Environment(
        ref, EnvironmentState.CREATING, "fake", "image", limits, gpus, (), (), Egress.NONE, datetime.now(UTC),
        should_run=True,
    )  # fmt: skip
