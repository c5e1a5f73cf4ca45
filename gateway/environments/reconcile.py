"""After a restart, and now and then: bring store, ledger and engine together, without killing what runs.

What runs is right, and the ledger follows its labels; what should run and does not is started; what nobody wants any
more gives its GPUs back. An environment that another process is at work on is left to that one; one whose node does
not answer is left alone, for it may run there, and a home has one writer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateway.engines.interface import Engine, ObservedEnvironment
from gateway.engines.nodes import unreachable
from gateway.environments.finding import Finding
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.troubles import Troubles
from gateway.errors import ConflictError, DevgwError
from gateway.model import Environment, EnvironmentRef, EnvironmentState, GpuUuid, NodeName
from gateway.store.environments import EnvironmentTable

_AGAIN = timedelta(minutes=10)
_CUT_OFF = frozenset({EnvironmentState.CREATING, EnvironmentState.DELETING})


class Ledger(Protocol):
    """What the reconciler does with leases."""

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> Sequence[EnvironmentRef]:
        """Make the rows say what the labels say; return who lost a row by it."""

    def release(self, ref: EnvironmentRef, at: datetime) -> None:
        """Give back whatever the environment holds."""


class Reconciler:
    """Compares store and engine; the caller journals the findings."""

    def __init__(
        self,
        table: EnvironmentTable,
        ledger: Ledger,
        engine: Engine,
        environments: EnvironmentLifecycle,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._engine = engine
        self._environments = environments
        self._now = now
        self._troubles = Troubles(table, "settling it", now)
        self._started: dict[EnvironmentRef, datetime] = {}
        self._away: dict[EnvironmentRef, NodeName] = {}

    def run(self) -> Iterator[Finding]:
        """Yield a finding for each environment that is, or should be, there. For the start of a gateway."""
        all_observed = self._observed()
        known = self._table.all()
        yield from self._settle_all(known, all_observed, is_start=True)
        for ref in all_observed.keys() - {environment.ref for environment in known}:
            state = state_word(all_observed[ref])
            detail = f"the engine has it ({state}), the store does not; left alone, 'devgw reap' removes it"
            yield Finding("environment.orphaned", ref, detail)

    def tidy(self) -> Iterator[Finding]:
        """The same while the gateway runs: findings only of what had to be changed."""
        return self._settle_all(self._table.all(), self._observed(), is_start=False)

    def orphans(self) -> list[ObservedEnvironment]:
        """Return what the engine has of this gateway's and the store does not know."""
        known = {environment.ref for environment in self._table.all()}
        return sorted((seen for ref, seen in self._observed().items() if ref not in known), key=lambda one: one.ref)

    def reap(self, ref: EnvironmentRef) -> bool:
        """Remove an orphan, running or not; False where it is none any more. Raises: EngineError."""
        with self._environments.locks.hold(ref):
            if self._table.get(ref) is not None:
                return False
            self._environments.require_known(ref)
            self._engine.delete(ref)
        return True

    def _settle_all(
        self,
        known: Sequence[Environment],
        all_observed: Mapping[EnvironmentRef, ObservedEnvironment],
        *,
        is_start: bool,
    ) -> Iterator[Finding]:
        # what runs comes first: a GPU it holds must not be given to what is started again
        for environment in sorted(known, key=lambda one: not _runs(all_observed.get(one.ref))):
            observed = all_observed.get(environment.ref)
            if observed is not None and observed.is_unknown:
                yield from self._leave_alone(observed)
                continue
            yield from self._note_return(environment.ref)
            if _is_settled(environment, observed):
                self._troubles.end(environment)
                if is_start and _runs(observed):
                    yield Finding("environment.adopted", environment.ref, "it went on running")
            elif self._troubles.is_due(environment.ref):
                yield from self._try(environment)

    def _leave_alone(self, observed: ObservedEnvironment) -> Iterator[Finding]:
        if self._away.get(observed.ref) != observed.node:
            self._away[observed.ref] = observed.node
            yield Finding("environment.unreachable", observed.ref, unreachable(observed.ref, observed.node).message)

    def _note_return(self, ref: EnvironmentRef) -> Iterator[Finding]:
        node = self._away.pop(ref, None)
        if node is not None:
            yield Finding("environment.returned", ref, f"what it does is known again; its node {node} did not answer")

    def _try(self, environment: Environment) -> Iterator[Finding]:
        """Settle one; whatever it fails of is its own trouble, and the others get their turn."""
        try:
            yield from self._settle(environment.ref)
        except Exception as exc:  # noqa: BLE001 - what users write can fail in any way
            yield self._troubles.note(environment.ref, exc)
        else:
            self._troubles.end(environment)

    def _settle(self, ref: EnvironmentRef) -> Iterator[Finding]:
        """Look again under the environment's lock, and act on what is seen then."""
        try:
            with self._environments.locks.hold(ref, wait=False):
                environment = self._table.get(ref)
                if environment is None:
                    return
                observed = self._engine.observe(ref)
                if observed is not None and observed.is_unknown:
                    yield from self._leave_alone(observed)
                    return
                if environment.state in _CUT_OFF:
                    self._environments.clear_remains(ref)
                    fate = "removed too" if environment.purges else "kept"
                    detail = f"its {environment.state} was cut off; the volumes were {fate}"
                    yield Finding("environment.deleted", ref, detail)
                    return
                if _runs(observed):
                    yield from self._adopt(environment, observed)
                    return
                if not environment.should_run:
                    yield from self._finish_stop(environment, observed)
                    return
        except ConflictError:
            return
        yield self._start_again(ref, observed)

    def _adopt(self, environment: Environment, observed: ObservedEnvironment | None) -> Iterator[Finding]:
        assert observed is not None  # noqa: S101 - it runs, says the caller
        ref = environment.ref
        for loser in self._ledger.adopt(ref, observed.gpus, self._now()):
            yield Finding("lease.released", loser, f"its GPU is in {ref}, which runs")
        if observed.image.startswith("sha256:") and observed.image != environment.image_digest:
            self._table.set_image(ref, observed.image)
        self._table.set_state(ref, EnvironmentState.RUNNING, should_run=True)
        adopted = self._table.require(ref)
        yield Finding.of_start("environment.adopted", adopted, "it went on running, and store and ledger follow it")

    def _finish_stop(self, environment: Environment, observed: ObservedEnvironment | None) -> Iterator[Finding]:
        ref = environment.ref
        self._engine.delete(ref)
        self._ledger.release(ref, self._now())
        is_failed = environment.state is EnvironmentState.FAILED
        if not is_failed:
            self._table.set_state(ref, EnvironmentState.STOPPED, should_run=False, detail=environment.detail)
        what = "a container" if observed is not None else "leases"
        yield Finding("environment.stopped", ref, f"a stop or start was cut off; {what} it left behind removed")

    def _start_again(self, ref: EnvironmentRef, observed: ObservedEnvironment | None) -> Finding:
        ended = observed.detail if observed is not None and observed.detail else "it ended by itself"
        last = self._started.get(ref)
        if last is not None and self._now() - last < _AGAIN:
            return self._give_up(ref, ended)
        self._started[ref] = self._now()
        try:
            started = self._environments.start(ref)
        except DevgwError as exc:
            return Finding("environment.failed", ref, exc.message)
        return Finding.of_start("environment.started", started, f"it should run and did not: {ended}")

    def _give_up(self, ref: EnvironmentRef, ended: str) -> Finding:
        self._environments.stop(ref)
        self._table.set_state(ref, EnvironmentState.FAILED, should_run=False, detail=f"ended again and again: {ended}")
        return Finding("environment.failed", ref, f"ended again soon after a start: {ended}")

    def _observed(self) -> dict[EnvironmentRef, ObservedEnvironment]:
        return {observed.ref: observed for observed in self._engine.observe_all()}


def state_word(observed: ObservedEnvironment) -> str:
    """Say what the engine knows of an environment, in a word."""
    if observed.is_unknown:
        return EnvironmentState.UNKNOWN.value
    return "running" if observed.running else "stopped"


def _runs(observed: ObservedEnvironment | None) -> bool:
    return observed is not None and observed.running


def _is_settled(environment: Environment, observed: ObservedEnvironment | None) -> bool:
    """Say whether store, ledger and engine agree."""
    if environment.state in _CUT_OFF:
        return False
    if observed is not None and observed.running:
        return (
            environment.state is EnvironmentState.RUNNING
            and environment.should_run
            and set(environment.gpus) == set(observed.gpus)
        )
    return not environment.should_run and not environment.gpus and observed is None and _is_at_rest(environment)


def _is_at_rest(environment: Environment) -> bool:
    return environment.state in {EnvironmentState.STOPPED, EnvironmentState.FAILED}
