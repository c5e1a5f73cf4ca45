"""Leases: which GPUs an environment gets, and that no one else has them. Uniqueness is the store's constraint.

Two gateways may choose at the same moment; the one whose rows come second chooses again.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from gateway.errors import ConflictError, LeaseError
from gateway.gpus.inventory import Inventory
from gateway.gpus.reading import Reading
from gateway.gpus.requests import GpuRequest, parse_gpu_request
from gateway.gpus.selection import choose
from gateway.model import EnvironmentRef, GpuUuid

_TAKEN = "gpu.taken"
_ATTEMPTS = 32  # each lost race means that somebody else got a GPU


class HeldLease(Protocol):
    """A row of the store: who holds which GPU."""

    @property
    def gpu(self) -> GpuUuid: ...

    @property
    def ref(self) -> EnvironmentRef: ...


class LeaseStore(Protocol):
    """Where leases are kept, at most one per GPU whatever happens."""

    def held(self) -> Sequence[HeldLease]:
        """Return every lease."""

    def take(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> None:
        """Lease all of them or none. Raises: LeaseError `gpu.taken`."""

    def release(self, ref: EnvironmentRef) -> None:
        """Give back whatever the environment holds."""


class Leases:
    """The GPUs of this host in environments' hands."""

    def __init__(
        self, store: LeaseStore, inventory: Inventory, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._now = now

    def lease(self, ref: EnvironmentRef, request: GpuRequest | str) -> tuple[GpuUuid, ...]:
        """Lease what is asked for, all or nothing, and return the UUIDs.

        Raises:
            UsageError: `gpu.bad-request`, `gpu.several-slices`.
            ConflictError: `gpu.already-leased`, when the environment holds GPUs.
            LeaseError: `gpu.absent`, `gpu.too-many`, `gpu.none-free`, `gpu.unknown`, `gpu.taken`.
        """
        asked = parse_gpu_request(request) if isinstance(request, str) else request
        if not asked.count:
            return ()
        reading = self._inventory.read()
        for _attempt in range(_ATTEMPTS):
            uuids = self._choose(ref, asked, reading)
            try:
                self._store.take(ref, uuids, self._now())
            except LeaseError as exc:
                if exc.code != _TAKEN:
                    raise
                continue
            return uuids
        raise LeaseError(_TAKEN, "the GPUs were taken by others again and again", "try once more")

    def release(self, ref: EnvironmentRef) -> None:
        """Give back what the environment holds; nothing held changes nothing."""
        self._store.release(ref)

    def holdings(self) -> tuple[Reading, dict[GpuUuid, EnvironmentRef]]:
        """Return the host's GPUs and who holds which, for `devgw gpus`."""
        return self._inventory.read(), {lease.gpu: lease.ref for lease in self._store.held()}

    def _choose(self, ref: EnvironmentRef, asked: GpuRequest, reading: Reading) -> tuple[GpuUuid, ...]:
        holders = {lease.gpu: lease.ref for lease in self._store.held()}
        if ref in holders.values():
            raise ConflictError("gpu.already-leased", f"{ref} holds GPUs already", f"'devgw show {ref}'")
        return choose(asked, reading, holders)
