"""After a restart: bring what the store means and what the engine has together, without killing anything."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.engines.interface import Engine, Witness
from gateway.environments.lifecycle import Environments
from gateway.errors import DevgwError
from gateway.model import Environment, EnvironmentRef, EnvironmentState
from gateway.store.environments import EnvironmentTable


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one environment, as a journal code, and what was done."""

    code: str
    ref: EnvironmentRef
    detail: str


class Reconciler:
    """Compares store and engine; the caller journals the findings."""

    def __init__(self, table: EnvironmentTable, engine: Engine, environments: Environments) -> None:
        self._table = table
        self._engine = engine
        self._environments = environments

    def run(self) -> Iterator[Finding]:
        """Yield a finding for each environment that is, or should be, there."""
        witnesses = {witness.ref: witness for witness in self._engine.witnesses()}
        known = self._table.all()
        for environment in known:
            yield from self._settle(environment, witnesses.pop(environment.ref, None))
        for ref, witness in witnesses.items():
            state = "running" if witness.running else "stopped"
            yield Finding("environment.orphaned", ref, f"the engine has it ({state}), the store does not; left alone")

    def _settle(self, environment: Environment, witness: Witness | None) -> Iterator[Finding]:
        ref = environment.ref
        if environment.state in {EnvironmentState.CREATING, EnvironmentState.DELETING}:
            if self._environments.clear_remains(ref):
                yield Finding("environment.deleted", ref, f"its {environment.state} was cut off; the volumes were kept")
        elif witness is not None and witness.running:
            yield Finding("environment.adopted", ref, "it went on running")
            if environment.state is not EnvironmentState.RUNNING:
                self._table.set_state(ref, EnvironmentState.RUNNING, should_run=True)
        elif environment.should_run:
            yield self._start_again(ref)

    def _start_again(self, ref: EnvironmentRef) -> Finding:
        try:
            self._environments.start(ref)
        except DevgwError as exc:
            return Finding("environment.failed", ref, exc.message)
        return Finding("environment.started", ref, "it should run and did not")
