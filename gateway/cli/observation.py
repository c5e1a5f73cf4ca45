"""Environments as they are now: the store's rows, corrected by the engine's word where it can be asked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gateway.errors import DevgwError
from gateway.model import Environment, EnvironmentRef, EnvironmentState

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.engines.interface import ObservedEnvironment

_UNSETTLED = frozenset({EnvironmentState.CREATING, EnvironmentState.DELETING})


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen. `silence` says why the engine could not be asked, and is empty when it answered.

    `caveats` say what of their settings is not in force on this host.
    """

    environments: tuple[Environment, ...]
    silence: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        return f"the engine cannot be asked ({self.silence}); states are the last known" if self.silence else ""


def observe(app: "App", environments: Iterable[Environment]) -> Observation:
    """Ask the engine about environments; without an engine the store's word stands."""
    kept = tuple(environments)
    try:
        all_observed = {observed.ref: observed for observed in app.engine.observe_all()} if kept else {}
    except DevgwError as exc:
        return Observation(kept, silence=exc.message)
    seen = tuple(_corrected(environment, all_observed) for environment in kept)
    asked = {environment.ref for environment in kept}
    caveats = dict.fromkeys(one for ref, observed in all_observed.items() if ref in asked for one in observed.caveats)
    return Observation(seen, caveats=tuple(caveats))


def document_of(environment: Environment) -> dict[str, Any]:
    """Return an environment as the JSON output shows it."""
    return {
        "handle": str(environment.ref),
        "user": environment.ref.user,
        "name": environment.ref.name,
        "state": environment.state.value,
        "detail": environment.trouble or environment.detail,
        "node": environment.node or None,
        "node_request": environment.node_request or None,
        "should_run": environment.should_run,
        "engine": environment.engine,
        "image": environment.image,
        "image_digest": environment.image_digest or None,
        "memory_bytes": environment.limits.memory_bytes,
        "shm_bytes": environment.limits.shm_bytes,
        "cpus": environment.limits.cpus,
        "pids": environment.limits.pids,
        "gpu_request": environment.gpu_request,
        "gpus": list(environment.gpus),
        "datasets": list(environment.datasets),
        "egress": environment.egress,
        "created_at": environment.created_at.isoformat(),
    }


def _corrected(environment: Environment, all_observed: "Mapping[EnvironmentRef, ObservedEnvironment]") -> Environment:
    observed = all_observed.get(environment.ref)
    if observed is not None and observed.is_unknown:
        detail = f"its node {observed.node} does not answer; it is {environment.state} as far as is known"
        return replace(environment, state=EnvironmentState.UNKNOWN, detail=detail, trouble="", node=observed.node)
    if observed is not None:
        environment = replace(environment, node=observed.node)
    if environment.state in _UNSETTLED:
        return environment
    if observed is not None and observed.running:
        return replace(environment, state=EnvironmentState.RUNNING)
    if environment.state is not EnvironmentState.RUNNING:
        return environment
    ended = observed.detail if observed is not None and observed.detail else "it ended by itself"
    return replace(environment, state=EnvironmentState.STOPPED, detail=ended)
