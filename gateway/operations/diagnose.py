"""Looks at this host and into environments for `devgw doctor`, by the environments' own ssh."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Settings
from gateway.doctor.doctor import Doctor, Sources
from gateway.doctor.facts import DiskFacts
from gateway.doctor.finding import Report
from gateway.doctor.inside import Answer
from gateway.engines.diagnostics import EngineDiagnostics
from gateway.engines.interface import Node
from gateway.environments.disk_warnings import LEVELS
from gateway.environments.disks import Disks
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import DevgwError, EngineError, NodeError
from gateway.gpus.sampler import holders_of
from gateway.gpus.sensors import Measuring
from gateway.model import Environment, EnvironmentRef, GpuUuid
from gateway.operations.nodes import nodes_in
from gateway.operations.recorded import Recorded
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.drains import DrainTable
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable

_INSIDE_SECONDS = 90.0  # importing torch on a cold disk is most of it


class DiagnoseOperations:
    """What an administrator asks of the doctor. To look into an environment is journaled: it is its user's."""

    def __init__(self, sources: Sources, recorded: Callable[[], Recorded]) -> None:
        self._doctor = Doctor(sources)
        self._recorded = recorded

    def host(self) -> Report:
        """Look at this host. Nothing is journaled: before `devgw init` there is no journal."""
        return self._doctor.look()

    def environment(self, environment: Environment) -> Report:
        """Look at this host and run the checks inside one environment, as its user."""
        self._recorded().note("admin.acted", str(environment.ref), command=f"doctor {environment.ref}")
        return self._doctor.look(environment)


def held_leases(database: Database, table: LeaseTable) -> Mapping[GpuUuid, EnvironmentRef]:
    """Return who holds which GPU; before `devgw init` nobody does, and no database is made for asking."""
    path = database.path
    if path is not None and not path.exists():
        return {}
    return holders_of(table.held())


def troubles_in(database: Database, table: EnvironmentTable) -> tuple[str, ...]:
    """Return what the gateway failed at with environments; before `devgw init` nothing, and no database is made."""
    path = database.path
    if path is not None and not path.exists():
        return ()
    return tuple(f"{one.ref}: {one.trouble}" for one in table.all() if one.trouble)


def disks_in(database: Database, table: EnvironmentTable, disks: Disks) -> DiskFacts:
    """Return which disks are kept, which are not, and which are nearly full; before `devgw init` there are none."""
    path = database.path
    if path is not None and not path.exists():
        return DiskFacts(disks.why_not(), way=disks.chosen_way())
    states = [(str(one.ref), disks.state(one.ref, one.limits.disk_bytes)) for one in table.all()]
    full = [(handle, state.use.percent) for handle, state in states if state.use and state.use.percent >= LEVELS[-1]]
    return DiskFacts(
        disks.why_not(),
        kept=sum(bool(state.kept_by) for _handle, state in states),
        unkept=tuple(f"{handle}, {state.why_not}" for handle, state in states if state.size_bytes and state.why_not),
        nearly_full=tuple(f"{handle}, {percent} %" for handle, percent in full),
        unsized=sum(not state.size_bytes for _handle, state in states),
        way=disks.chosen_way(),
        leavable=disks.why_leavable(),
    )


@dataclass(frozen=True, slots=True)
class Held:
    """The rows that tell who holds what, and what went wrong with it."""

    database: Database
    leases: LeaseTable
    environments: EnvironmentTable
    drains: DrainTable
    nodes: Callable[[], Sequence[Node]]
    disks: Disks


def sources_of(
    settings: Settings,
    engine: Callable[[], EngineDiagnostics],
    sensors: Measuring,
    policy: PolicyInForce,
    held: Held,
    inside: "Inside",
) -> Sources:
    """Name whom the doctor asks on this host."""
    return Sources(
        settings=settings,
        engine=engine,
        sensors=sensors,
        leases=lambda: held_leases(held.database, held.leases),
        troubles=lambda: troubles_in(held.database, held.environments),
        disks=lambda: disks_in(held.database, held.environments, held.disks),
        nodes=lambda: nodes_in(held.database, held.drains, held.nodes()),
        policy_file=policy.file,
        load_policy=lambda: policy.policy,
        ask_inside=inside.ask,
    )


@dataclass(frozen=True, slots=True)
class Inside:
    """Asks an environment by its own ssh."""

    lifecycle: EnvironmentLifecycle
    user_ca_key: Callable[[], Path]

    def ask(self, ref: EnvironmentRef, arguments: Sequence[str]) -> Answer:
        """Run a command in an environment as its user. Raises: EngineError, also where it is not running."""
        from gateway.ssh.upstream.captured_exec import run_captured
        from gateway.ssh.upstream.environment_login import Door

        try:
            dialled = self.lifecycle.dial(ref, "ssh")
        except NodeError:
            raise
        except DevgwError as exc:
            raise EngineError("environment.unreachable", f"{ref} does not answer: {exc.message}") from exc
        door = Door(ref, self.lifecycle.host_key(ref), self.user_ca_key())
        done = run_captured(dialled, door, arguments, _INSIDE_SECONDS)
        return Answer(done.exit_code, done.stdout, done.stderr)
