"""A lease store in memory with the store's one rule: a GPU has at most one holder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.errors import LeaseError
from gateway.model import EnvironmentRef, GpuUuid


@dataclass(frozen=True, slots=True)
class FakeLease:
    """A row."""

    gpu: GpuUuid
    ref: EnvironmentRef
    leased_at: datetime
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FakeQuarantine:
    """A GPU out of use."""

    gpu: GpuUuid
    reason: str


class FakeLeaseStore:
    """`before_take` runs between choosing and taking, where another gateway may come first."""

    def __init__(self) -> None:
        self.rows: dict[GpuUuid, FakeLease] = {}
        self.out_of_use: dict[GpuUuid, str] = {}
        self.before_take: Callable[[], None] = lambda: None

    def held(self) -> list[FakeLease]:
        return list(self.rows.values())

    def take(
        self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime, ends_at: datetime | None = None
    ) -> None:
        self.before_take()
        if self.rows.keys() & set(uuids):
            raise LeaseError("gpu.taken", "leased already", "")
        self.rows.update({uuid: FakeLease(uuid, ref, at, ends_at) for uuid in uuids})

    def holders(self) -> dict[GpuUuid, EnvironmentRef]:
        return {uuid: row.ref for uuid, row in self.rows.items()}

    def quarantined(self) -> list[FakeQuarantine]:
        return [FakeQuarantine(gpu, reason) for gpu, reason in self.out_of_use.items()]

    def adopt(self, ref: EnvironmentRef, uuids: Sequence[GpuUuid], at: datetime) -> list[EnvironmentRef]:
        losers = sorted({self.rows[uuid].ref for uuid in uuids if uuid in self.rows} - {ref})
        for each in (ref, *losers):
            self.release(each, at)
        self.rows.update({uuid: FakeLease(uuid, ref, at) for uuid in uuids})
        return losers

    def set_end(self, ref: EnvironmentRef, ends_at: datetime | None) -> bool:
        mine = {uuid: replace(row, ends_at=ends_at) for uuid, row in self.rows.items() if row.ref == ref}
        self.rows |= mine
        return bool(mine)

    def release(self, ref: EnvironmentRef, at: datetime) -> None:
        self.rows = {uuid: row for uuid, row in self.rows.items() if row.ref != ref}
