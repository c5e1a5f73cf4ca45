"""Leases: which GPUs an environment gets, and that no one else has them. Uniqueness is the store's constraint.

Two gateways may choose at the same moment; the one whose rows come second chooses again. See `queue` for the order
of those who wait; the caller decides what to do about a refusal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateway.errors import ConflictError, EngineError, LeaseError
from gateway.gpu_requests import GpuRequest, parse_gpu_request
from gateway.gpus.activity import Activity, NoActivity
from gateway.gpus.inventory import Inventory
from gateway.gpus.queue import Reservations
from gateway.gpus.reading import Reading
from gateway.gpus.selection import Situation, choose
from gateway.model import EnvironmentRef, GpuUuid, UserName

_TAKEN = "gpu.taken"
_ATTEMPTS = 32  # each lost race means that somebody else got a GPU
_PIECE = 64  # waiters looked at in one go; most decisions need no second one


class OutOfUse(Protocol):
    """A row of the store: a GPU that must not be leased, and why."""

    @property
    def gpu(self) -> GpuUuid: ...

    @property
    def reason(self) -> str: ...


class LeaseStore(Protocol):
    """Where leases are kept, at most one per GPU whatever happens."""

    def holders(self) -> Mapping[GpuUuid, EnvironmentRef]:
        """Return who holds which GPU."""

    def quarantined(self) -> Sequence[OutOfUse]:
        """Return the GPUs out of use."""

    def take(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime, ends_at: datetime | None) -> None:
        """Lease all of them or none. Raises: LeaseError `gpu.taken`."""

    def release(self, ref: EnvironmentRef, at: datetime) -> None:
        """Give back whatever the environment holds."""

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> Sequence[EnvironmentRef]:
        """Make the rows say what the engine says; return who lost a row by it."""

    def set_end(self, ref: EnvironmentRef, ends_at: datetime | None) -> bool:
        """Move the end of what an environment holds."""


class Line(Protocol):
    """Those who wait, in their order."""

    def requests_before(self, ref: EnvironmentRef, at: datetime, first: int, count: int) -> Sequence[str]:
        """Return a piece of what those ask for who are served before `ref`."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """A line in which nobody stands."""

    def requests_before(self, _ref: EnvironmentRef, _at: datetime, _first: int, _count: int) -> Sequence[str]:
        return ()


def _without_end(_user: UserName) -> None:
    """Let a lease last as long as its environment runs."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else decides on a lease beside the store's rows.

    `containers` is the engine's word on who holds what: it counts even where the store has lost the row.
    """

    containers: Callable[[], Mapping[GpuUuid, EnvironmentRef]] = dict
    activity: Activity = field(default_factory=NoActivity)
    line: Line = field(default_factory=Nobody)
    length_seconds: Callable[[UserName], int | None] = _without_end
    """How long a user's lease lasts; None for no end."""
    out_of_reach: Callable[[], Mapping[GpuUuid, str]] = dict
    """GPUs that nobody can get because of their node, and why."""


class Leases:
    """The GPUs of this host in environments' hands."""

    def __init__(
        self,
        store: LeaseStore,
        inventory: Inventory,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        around: Surroundings | None = None,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._now = now
        self._around = around or Surroundings()

    def lease(self, ref: EnvironmentRef, request: GpuRequest | str) -> tuple[GpuUuid, ...]:
        """Lease what is asked for, all or nothing, and return the UUIDs.

        Raises:
            UsageError: `gpu.bad-request`, `gpu.several-slices`.
            ConflictError: `gpu.already-leased`, when the environment holds GPUs.
            LeaseError: `gpu.absent`, `gpu.too-many`, `gpu.unknown`, `gpu.taken`.
            QueuedError: `gpu.none-free`, when waiting may help.
        """
        asked = parse_gpu_request(request) if isinstance(request, str) else request
        if not asked.count:
            return ()
        reading = self._inventory.read()
        foreign: dict[GpuUuid, str] = {}
        for _attempt in range(_ATTEMPTS):
            uuids = self._choose(ref, asked, reading, foreign)
            if found := foreign_processes(self._around.activity, uuids):
                foreign |= found
                continue
            try:
                self._store.take(ref, uuids, self._now(), self.end_of(ref.user))
            except LeaseError as exc:
                if exc.code != _TAKEN:
                    raise
                continue
            return uuids
        raise LeaseError(_TAKEN, "the GPUs were taken by others again and again", "try once more")

    def hold(self, ref: EnvironmentRef, request: str) -> tuple[GpuUuid, ...]:
        """Keep what the environment holds where that is still what it asks for, else lease anew. Raises: as `lease`.

        So an environment that is started again after a crash or a reboot cannot lose its GPUs in between.
        """
        held = self.held_by(ref)
        if held and self._still_fits(ref, held, parse_gpu_request(request)):
            return held
        self.release(ref)
        return self.lease(ref, request)

    def require_turn(self, ref: EnvironmentRef, request: str) -> None:
        """Refuse one whose turn has not come, where the engine finds the GPUs and devgw keeps the queue.

        Raises: as `lease`; nothing is taken.
        """
        asked = parse_gpu_request(request)
        if asked.count:
            self._choose(ref, asked, self._inventory.read(), {})

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], *, with_end: bool) -> Sequence[EnvironmentRef]:
        """Make the ledger say what the engine says, with an end where ends are devgw's; return who lost a lease."""
        losers = self._store.adopt(ref, uuids, self._now())
        if with_end:
            self._store.set_end(ref, self.end_of(ref.user))
        return losers

    def held_by(self, ref: EnvironmentRef) -> tuple[GpuUuid, ...]:
        """Return what the environment holds."""
        return tuple(gpu for gpu, holder in self._store.holders().items() if holder == ref)

    def release(self, ref: EnvironmentRef) -> None:
        """Give back what the environment holds; nothing held changes nothing."""
        self._store.release(ref, self._now())

    def end_of(self, user: UserName) -> datetime | None:
        """Return when a lease that is given or extended now has to end at the latest."""
        seconds = self._around.length_seconds(user)
        return None if seconds is None else self._now() + timedelta(seconds=seconds)

    def situation(self) -> tuple[Reading, Situation]:
        """Return the host's GPUs and which of them cannot be had, for people to see; also without an engine."""
        reading = self._inventory.read()
        try:
            holders = self._holders(None)
        except EngineError:
            holders = dict(self._store.holders())
        free = [gpu.uuid for gpu in reading.gpus if gpu.uuid not in holders]
        return reading, Situation(holders, self._quarantined() | foreign_processes(self._around.activity, free))

    def _choose(
        self, ref: EnvironmentRef, asked: GpuRequest, reading: Reading, foreign: Mapping[GpuUuid, str]
    ) -> tuple[GpuUuid, ...]:
        holders = self._holders(None, own=ref)
        if ref in holders.values():
            raise ConflictError("gpu.already-leased", f"{ref} holds GPUs already", f"'devgw show {ref}'")
        unusable = {**self._quarantined(), **foreign}
        chosen = choose(asked, reading, Situation(holders, unusable))
        kept = self._kept_for_others(ref, asked, reading, Situation(holders, unusable))
        return choose(asked, reading, Situation(holders, unusable, kept)) if kept else chosen

    def _kept_for_others(
        self, ref: EnvironmentRef, asked: GpuRequest, reading: Reading, now: Situation
    ) -> frozenset[GpuUuid]:
        reservations = Reservations([gpu for gpu in reading.gpus if now.is_free(gpu.uuid)], asked)
        for gpu_request in self._requests_before(ref):
            reservations.keep(gpu_request)
            if not reservations.has_room():
                break
        return frozenset(reservations.kept)

    def _requests_before(self, ref: EnvironmentRef) -> Iterator[str]:
        first, at = 0, self._now()
        while piece := self._around.line.requests_before(ref, at, first, _PIECE):
            yield from piece
            first += len(piece)

    def _holders(
        self, without: EnvironmentRef | None, *, own: EnvironmentRef | None = None
    ) -> dict[GpuUuid, EnvironmentRef]:
        """Join the rows with the engine's word; a container of the environment's own stands in nobody's way."""
        containers = {gpu: ref for gpu, ref in self._around.containers().items() if ref not in {own, without}}
        return containers | {gpu: ref for gpu, ref in self._store.holders().items() if ref != without}

    def _quarantined(self) -> dict[GpuUuid, str]:
        reasons = {row.gpu: row.reason for row in self._store.quarantined()}
        return {**self._around.out_of_reach(), **reasons}

    def _still_fits(self, ref: EnvironmentRef, held: tuple[GpuUuid, ...], asked: GpuRequest) -> bool:
        reading = self._inventory.read()
        others = Situation(self._holders(ref), self._quarantined())
        mine = Reading(reading.source, tuple(gpu for gpu in reading.gpus if gpu.uuid in held))
        try:
            return set(choose(asked, mine, others)) == set(held)
        except LeaseError:
            return False


def foreign_processes(activity: Activity, free: Iterable[GpuUuid]) -> dict[GpuUuid, str]:
    """Say of GPUs that nobody holds which have a process on them all the same: one from outside every environment."""
    return {
        uuid: f"used from outside devgw by process {', '.join(map(str, pids[:4]))}"
        for uuid, pids in activity.processes(free).items()
    }
