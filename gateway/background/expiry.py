"""When time alone has changed what somebody who is connected may do: hours, a grant's or a certificate's end.

Asked twice a second, so it only looks up: a user's effective roles are one shared value until those in force change.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from policies.effective_roles import EffectiveRoles
from policies.model import Policy
from policies.requests import Subject


class Expiry:
    """Remembers when it was looked at last, and what each connected user held then."""

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._held: dict[str, EffectiveRoles] = {}
        self._policy: Policy | None = None

    def has_struck(self, policy: Policy, subjects: Iterable[Subject], now: datetime) -> bool:
        """Say whether time has changed anything since the last look; a new policy is its reload's business."""
        last, self._at = self._at, now
        known = self._held if policy is self._policy else {}
        self._policy, several = policy, list(subjects)
        self._held = {name: policy.holders.effective_roles(name, now) for name in {one.user for one in several}}
        if last is None:
            return False
        for name, roles in self._held.items():
            before = known.get(name) or policy.holders.effective_roles(
                name, last
            )  # who came since then was judged since then
            if before is not roles:
                return True
        return any(_has_expired(subject, last, now) for subject in several)


def _has_expired(subject: Subject, last: datetime, now: datetime) -> bool:
    certificate = subject.certificate
    return certificate is not None and last < certificate.valid_before <= now


class GrantExpiry:
    """Says once of each user that their last grant has ended. A look costs a comparison until one does."""

    def __init__(self, since: datetime) -> None:
        """`since` is when the gateway was last awake: what ended while it was away is said at the first look."""
        self._seen_until = since
        self._policy: Policy | None = None
        self._ends: list[tuple[datetime, str, str]] = []

    def ended(self, policy: Policy, now: datetime) -> list[tuple[str, str, datetime]]:
        """Return users, the rule of their last grant and its end, for those that ended since the last look."""
        if policy is not self._policy:
            self._policy, self._ends = policy, sorted(_last_ends(policy))
        since, self._seen_until = self._seen_until, max(now, self._seen_until)
        return [(user, rule, end) for end, user, rule in self._ends if since < end <= now]


def _last_ends(policy: Policy) -> Iterator[tuple[datetime, str, str]]:
    for user in policy.holders.users():
        holdings = policy.holders.holdings(user)
        ends = [(holding.ends, user, holding.rule) for holding in holdings if holding.ends is not None]
        if ends and len(ends) == len(holdings):
            yield max(ends)
