"""GPUs: take one out of use and put it back, move the end of a lease, count hours of use."""

from datetime import datetime

from gateway.gpus.lease_extension import LeaseExtension
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.usage import Grouping, Period, Span, Usage, account
from gateway.model import EnvironmentRef
from gateway.operations.recorded import Recorded
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.usage import UsageTable


class GpuOperations:
    """An administrator's acts on GPUs and leases."""

    def __init__(
        self, table: EnvironmentTable, extension: LeaseExtension, quarantines: Quarantines, recorded: Recorded
    ) -> None:
        self._table = table
        self._extension = extension
        self._quarantines = quarantines
        self._recorded = recorded

    def extend(self, ref: EnvironmentRef, seconds: int) -> datetime:
        """Move the end of an environment's lease and return it. Raises: NotFoundError, ConflictError, DeniedError."""
        self._table.require(ref)
        with self._recorded.act("lease.extended", str(ref), by=f"{seconds}s"):
            return self._extension.extend(ref, seconds)

    def quarantine(self, uuid: str, reason: str) -> None:
        """Take a GPU out of use; whoever has it keeps it until they stop. Raises: LeaseError `gpu.unknown`."""
        with self._recorded.act("gpu.quarantined", gpu=uuid, reason=reason):
            self._quarantines.add(uuid, reason)

    def lift(self, uuid: str) -> None:
        """Put a GPU back into use. Raises: ConflictError `gpu.not-quarantined`."""
        with self._recorded.act("gpu.restored", gpu=uuid):
            self._quarantines.lift(uuid)


def count_usage(leases: LeaseTable, samples: UsageTable, period: Period, by: Grouping) -> list[Usage]:
    """Count GPU-hours of a period, for `devgw usage`."""
    past = [Span(one.gpu, one.ref, one.leased_at, one.ended_at) for one in leases.past(period.since)]
    held = [Span(one.gpu, one.ref, one.leased_at) for one in leases.held()]
    return account([*past, *held], samples.between(period.since, period.until), period, by)
