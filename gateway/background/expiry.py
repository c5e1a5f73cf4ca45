"""When time alone has changed what somebody who is connected may do: hours, a grant's or a certificate's end.

Asked twice a second, so it only looks up: a user's effective roles are one shared value until those in force change.
"""

from collections.abc import Iterable
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
