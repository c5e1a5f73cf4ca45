"""How long GPUs stay in a hand: moving the end of a lease, within what the policy allows."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gateway.errors import ConflictError, DeniedError
from gateway.gpus.leases import Leases
from gateway.model import EnvironmentRef
from gateway.store.leases import LeaseTable


class LeaseExtension:
    """Extends leases."""

    def __init__(
        self, ledger: LeaseTable, leases: Leases, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._now = now

    def extend(self, ref: EnvironmentRef, seconds: int) -> datetime:
        """Move the end of an environment's lease and return it.

        Raises:
            ConflictError: `lease.none`, `lease.endless`.
            DeniedError: `lease.too-long`, for an end later than a new lease's would be.
        """
        held = [lease for lease in self._ledger.held() if lease.ref == ref]
        if not held:
            raise ConflictError("lease.none", f"{ref} holds no GPU", f"'devgw start {ref}' leases what it asks for")
        end = held[0].ends_at
        if end is None:
            raise ConflictError("lease.endless", f"the lease of {ref} has no end", "nothing needs to be done")
        wanted = max(end, self._now()) + timedelta(seconds=seconds)
        latest = self._leases.end_of(ref.user)
        if latest is not None and wanted > latest:
            raise DeniedError(
                "lease.too-long",
                f"the lease would end at {wanted:%Y-%m-%d %H:%M} UTC, the policy's max_lease ends it by "
                f"{latest:%Y-%m-%d %H:%M} UTC",
                f"extend it by less, or again later; 'devgw policy explain {ref.user} create' names the rule",
            )
        self._ledger.set_end(ref, wanted)
        return wanted
