"""GPUs out of use: by an administrator's hand or a critical error, until an administrator lifts it.

A process from outside every environment keeps a free GPU from being leased too, but only as long as it runs: `leases`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from gateway.errors import ConflictError, LeaseError
from gateway.gpus.inventory import Inventory
from gateway.model import GpuUuid


class QuarantineStore(Protocol):
    """Where it is written down."""

    def quarantine(self, uuid: GpuUuid, reason: str, at: datetime) -> bool:
        """Take a GPU out of use; say whether it was in use before."""

    def lift(self, uuid: GpuUuid) -> bool:
        """Put a GPU back into use; say whether it was out of it."""


class Quarantines:
    """Takes GPUs out of use and puts them back."""

    def __init__(
        self, store: QuarantineStore, inventory: Inventory, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._now = now

    def add(self, uuid: str, reason: str) -> None:
        """Take a GPU out of use by hand. Raises: LeaseError `gpu.unknown`."""
        found = next((gpu.uuid for gpu in self._inventory.read().gpus if gpu.uuid.lower() == uuid.lower()), None)
        if found is None:
            raise LeaseError("gpu.unknown", f"this host has no {uuid[:60]}", "'devgw gpus' lists what it has")
        self._store.quarantine(found, reason, self._now())

    def lift(self, uuid: str) -> None:
        """Put a GPU back into use. Raises: ConflictError `gpu.not-quarantined`."""
        if not self._store.lift(GpuUuid(uuid)):
            raise ConflictError(
                "gpu.not-quarantined", f"{uuid[:60]} is not quarantined", "'devgw gpus' shows which are"
            )

    def add_after_xid(self, index: int, xid: int) -> list[GpuUuid]:
        """Take a GPU, or all its slices, out of use after a critical error; return those that were in use before."""
        prefix = f"{index}:"
        hit = [gpu.uuid for gpu in self._inventory.read().gpus if f"{gpu.index}:".startswith(prefix)]
        return [uuid for uuid in hit if self._store.quarantine(uuid, f"critical error Xid {xid}", self._now())]
