"""Who can? One question asked for many people, with the way they come by it: role, grant and its end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import Any

from policies.decide import decide
from policies.effective_roles import EffectiveRoles
from policies.explain import request_for
from policies.keys import HARDWARE_KEY_TYPES, KeyType
from policies.model import Policy
from policies.policy_tests.assertions import ALGORITHMS
from policies.requests import Certificate, Decision, Subject


@dataclass(frozen=True, slots=True)
class Reach:
    """One person's answer. `grants` holds each role, the grant that gives it, and when it ends."""

    user: str
    question: str
    decision: Decision
    grants: tuple[tuple[str, str, datetime | None], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return one row of `devgw who-can -o json`."""
        return {
            "user": self.user,
            "question": self.question,
            "allowed": self.decision.allowed,
            "rule": self.decision.rule,
            "reason": self.decision.reason,
            "grants": [
                {"role": role, "grant": grant, "until": until.isoformat() if until else None}
                for role, grant, until in self.grants
            ],
        }


def who_can(policy: Policy, users: Iterable[str], question: str, at: datetime) -> Iterator[Reach]:
    """Answer a question for each user as if with the best key and address they may use. Raises: ValueError."""
    for user in users:
        request = request_for(policy, question, best_subject(policy, user, at), at)
        yield Reach(user, question, decide(policy, request), grants_of(policy, user, at))


def grants_of(policy: Policy, user: str, at: datetime) -> tuple[tuple[str, str, datetime | None], ...]:
    """Return the roles a user holds at a moment: role, grant with its place, end."""
    return tuple(
        (holding.held.name, holding.rule, holding.ends)
        for holding in policy.holders.holdings(user)
        if holding.is_valid(at)
    )


def best_subject(policy: Policy, user: str, at: datetime) -> Subject:
    """Return a subject whose key and address the user's roles accept, where any is accepted at all."""
    kind, address, needs_certificate = _best_means(policy.holders.effective_roles(user, at))
    certificate = best_certificate(policy, user, at) if needs_certificate else None
    return Subject(user, address, ALGORITHMS[kind], 16_384, certificate=certificate)


@lru_cache(maxsize=1024)
def _best_means(effective: EffectiveRoles) -> tuple[KeyType, str, bool]:
    """Return the kind of key, the address, and whether a certificate is needed; users of the same roles share one."""
    roles = [held.role for held in effective.key_rules]
    kinds: list[KeyType] = [
        kind
        for kind in ALGORITHMS
        if all(kind in role.key_types for role in roles)
        and kind not in effective.denied_key_types
        and (kind in HARDWARE_KEY_TYPES or not any(role.require_hardware_key for role in roles))
    ]
    networks = effective.networks
    address = str(networks[0][0][0].network_address) if networks else "192.0.2.1"  # RFC 5737: for documentation
    return kinds[0] if kinds else "sk-ed25519", address, any(role.require_certificate for role in roles)


def best_certificate(policy: Policy, user: str, at: datetime) -> Certificate | None:
    """Return a certificate that the user's roles accept now, or None where they accept no CA."""
    roles = [held.role for held in policy.holders.effective_roles(user, at).in_force]
    name = next((name for role in roles for name in role.certificate_authorities), None)
    if name is None:
        return None
    authority = policy.certificate_authorities[name]
    return Certificate(
        ca_fingerprint=authority.fingerprint,
        key_id=user,
        serial=next(serial for serial in count(1) if serial not in authority.revoked_serials),
        principals=(user,),
        valid_after=at,
        valid_before=at + timedelta(seconds=min(60, authority.max_validity)),
    )
