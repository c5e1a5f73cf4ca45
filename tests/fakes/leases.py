"""A lease store in memory with the store's one rule: a GPU has at most one holder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import LeaseError
from gateway.model import EnvironmentRef, GpuUuid


@dataclass(frozen=True, slots=True)
class FakeLease:
    """A row."""

    gpu: GpuUuid
    ref: EnvironmentRef
    leased_at: datetime


class FakeLeaseStore:
    """`before_take` runs between choosing and taking, where another gateway may come first."""

    def __init__(self) -> None:
        self.rows: dict[GpuUuid, FakeLease] = {}
        self.before_take: Callable[[], None] = lambda: None

    def held(self) -> list[FakeLease]:
        return list(self.rows.values())

    def take(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> None:
        self.before_take()
        if self.rows.keys() & set(uuids):
            raise LeaseError("gpu.taken", "leased already", "")
        self.rows.update({uuid: FakeLease(uuid, ref, at) for uuid in uuids})

    def release(self, ref: EnvironmentRef) -> None:
        self.rows = {uuid: row for uuid, row in self.rows.items() if row.ref != ref}
