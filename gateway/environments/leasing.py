"""An environment's GPUs through its life: leased before a start, or followed after it where the engine finds them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Protocol

from gateway.audit import events
from gateway.engines.interface import Engine, Progress
from gateway.errors import EngineError
from gateway.gate import Recorder
from gateway.gpu_requests import parse_gpu_request
from gateway.gpus.deciders import Deciders
from gateway.model import Actor, Environment, EnvironmentRef, GpuUuid, UserName

NO_GPU = frozenset({"", "0"})


class Leasing(Protocol):
    """What the lifecycle needs of `gpus.leases`."""

    def hold(self, ref: EnvironmentRef, request: str) -> tuple[GpuUuid, ...]:
        """Keep or lease what was asked for. Raises: LeaseError, UsageError."""

    def require_turn(self, ref: EnvironmentRef, request: str) -> None:
        """Refuse one whose turn has not come. Raises: LeaseError, UsageError."""

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], *, with_end: bool) -> Sequence[EnvironmentRef]:
        """Make the ledger say what the engine says; return who lost a lease by it."""

    def held_by(self, ref: EnvironmentRef) -> tuple[GpuUuid, ...]:
        """Return what the environment holds."""

    def release(self, ref: EnvironmentRef) -> None:
        """Give back what the environment holds."""

    def end_of(self, user: UserName) -> datetime | None:
        """Return when a lease that is given now ends at the latest."""


class EnvironmentLeases:
    """Leases as environments come and go, each change journaled. Who decides is `gpus.deciders`' word."""

    def __init__(self, leases: Leasing, engine: Callable[[], Engine], recorder: Recorder) -> None:
        self._leases = leases
        self._engine = engine
        self._recorder = recorder

    @property
    def deciders(self) -> Deciders:
        return Deciders.of(self._engine().scheduling)

    def before_start(
        self, environment: Environment, undo: ExitStack, progress: Progress, actor: Actor
    ) -> tuple[GpuUuid, ...]:
        """Lease what the environment asks for; where the engine finds it, only see that it is its turn."""
        ref, asked = environment.ref, environment.gpu_request
        if asked in NO_GPU:
            return ()
        undo.callback(self.give_back, ref, actor, "the environment did not start")
        if self.deciders.engine_places:
            self.give_back(ref, actor, "the engine finds its GPUs anew")
            if not self.deciders.engine_queues:
                self._leases.require_turn(ref, asked)
            progress(f"asking the engine for GPU {asked}")
            return ()
        progress(f"leasing GPU {asked}")
        before = self._leases.held_by(ref)
        gpus = self._leases.hold(ref, asked)
        if set(gpus) != set(before):
            self._note("lease.granted", ref, actor, gpus, f"asked for {asked}")
        return gpus

    def after_start(self, environment: Environment, actor: Actor) -> tuple[GpuUuid, ...]:
        """Return what the environment has; where the engine found it, the ledger follows.

        Raises:
            EngineError: `gpu.injection`, when the engine gave another number than was asked for.
        """
        ref = environment.ref
        if not self.deciders.engine_places:
            return self._leases.held_by(ref)
        observed = self._engine().observe(ref)
        gpus = () if observed is None else observed.gpus
        asked = parse_gpu_request(environment.gpu_request)
        if len(gpus) != asked.count:
            raise EngineError(
                "gpu.injection",
                f"{ref} asked for {asked.count} GPUs and the engine gave it {len(gpus)}",
                "'devgw nodes' shows what there is; 'devgw doctor' looks for the cause",
            )
        if gpus:
            node = observed.node if observed is not None else ""
            for loser in self._leases.adopt(ref, gpus, with_end=not self.deciders.engine_ends):
                self._note("lease.released", loser, actor, gpus, f"the engine gave it to {ref}")
            self._note("lease.granted", ref, actor, gpus, f"asked for {environment.gpu_request}, found on {node}")
        return gpus

    def give_back(self, ref: EnvironmentRef, actor: Actor, reason: str) -> None:
        """Release what the environment holds."""
        held = self._leases.held_by(ref)
        self._leases.release(ref)
        if held:
            self._note("lease.released", ref, actor, held, reason)

    def _note(
        self, code: events.Change, ref: EnvironmentRef, actor: Actor, gpus: tuple[GpuUuid, ...], reason: str
    ) -> None:
        is_devgws = code == "lease.granted" and not self.deciders.engine_ends
        end = self._leases.end_of(ref.user) if is_devgws else None
        text = "" if end is None else end.isoformat(timespec="seconds")
        self._recorder.submit(events.lease_changed(code, actor, str(ref), ",".join(gpus), reason, text)).result()
