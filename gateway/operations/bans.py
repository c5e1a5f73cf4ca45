"""Sources that are shut out after failed logins: which they are, and letting one in again before its time."""

import ipaddress
from collections.abc import Sequence

from gateway.audit.events import source_unbanned
from gateway.auth.throttle import Ban, Throttle
from gateway.errors import NotFoundError, UsageError
from gateway.operations.recorded import Recorded


class BanOperations:
    """An administrator's view of the bans in force, in common with the processes that serve."""

    def __init__(self, throttle: Throttle, recorded: Recorded) -> None:
        self._throttle = throttle
        self._recorded = recorded

    def all(self) -> list[Ban]:
        """Return every ban in force, the one that ends first at the front."""
        return sorted(self._throttle.bans(), key=lambda ban: ban.until)

    def lift(self, address: str, user: str | None = None, reason: str = "") -> Sequence[Ban]:
        """Lift an address's bans with those of its users, or one user's there, and return them; nothing stays counted.

        Raises:
            UsageError: `address.bad`.
            NotFoundError: `ban.not-found`.
            JournalError: nothing was lifted.
        """
        _require_address(address)
        found = [ban for ban in self._throttle.bans(address) if user is None or ban.user == user]
        if not found:
            whom = f"{user[:64]!r} is not banned at {address}" if user is not None else f"{address} is not banned"
            raise NotFoundError("ban.not-found", whom, "'devgw bans list' shows which are")
        why = reason or "lifted by an administrator"
        for ban in found:
            actor = self._recorded.actor
            self._recorded.event(source_unbanned(actor, ban.address, ban.user, ban.left_seconds, ban.reason, why))
        self._throttle.lift(address, user)
        return found


def _require_address(text: str) -> None:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        raise UsageError(
            "address.bad", f"{text[:64]!r} is no IP address", "'devgw bans list' shows those that are banned"
        ) from None
