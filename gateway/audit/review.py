"""The access review: who may reach what and why, when they last did, and what an administrator should look at.

Takes plain facts, so it needs no store, engine or gateway; the command line gathers them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from gateway.model import PublicKey, User
from policies.decide import decide
from policies.limits import datasets_of, limits_of
from policies.model import Policy
from policies.page import level_held, whose
from policies.quantities import show_duration, show_size
from policies.reach import grants_of
from policies.requests import LoginRequest, Subject

Severity = Literal["act", "look"]
_WEAK_RSA_BITS = 3072


@dataclass(frozen=True, slots=True)
class Person:
    """What the store knows of one user: their keys, and when they last used each and logged in at all."""

    user: User
    keys: tuple[PublicKey, ...]
    last_login_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key in the review: whether it would let its owner in, and what is wrong with it."""

    fingerprint: str
    kind: str
    comment: str
    added_at: datetime | None
    last_used_at: datetime | None
    accepted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Access:
    """One person in the review: how they come by it (role, grant, end) and what it amounts to."""

    user: str
    disabled: bool
    grants: tuple[tuple[str, str, datetime | None], ...]
    keys: tuple[KeyLine, ...]
    may: tuple[tuple[str, str], ...]
    last_login_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints of one person."""
        return {
            "user": self.user,
            "disabled": self.disabled,
            "last_login_at": _iso(self.last_login_at),
            "grants": [{"role": role, "grant": grant, "until": _iso(until)} for role, grant, until in self.grants],
            "may": dict(self.may),
            "keys": [
                {
                    "fingerprint": key.fingerprint,
                    "kind": key.kind,
                    "comment": key.comment,
                    "added_at": _iso(key.added_at),
                    "last_used_at": _iso(key.last_used_at),
                    "accepted": key.accepted,
                    "why": key.why,
                }
                for key in self.keys
            ],
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at, or to act upon. `code` is stable."""

    severity: Severity
    code: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Review:
    """A whole review, as of one moment."""

    at: datetime
    policy: str
    people: tuple[Access, ...]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {
            "version": 1,
            "at": self.at.isoformat(),
            "policy": self.policy,
            "findings": [{name: getattr(one, name) for name in Finding.__slots__} for one in self.findings],
            "people": [access.as_dict() for access in self.people],
        }


def review(
    policy: Policy,
    people: Sequence[Person],
    *,
    datasets: Sequence[str],
    at: datetime,
    unused_after: timedelta = timedelta(days=90),
    expires_within: timedelta = timedelta(days=30),
) -> Review:
    """Review everybody's access. `datasets` are those the gateway knows, so that patterns show as names."""
    access = tuple(access_of(policy, person, datasets, at) for person in people)
    owners = _owners(people)
    findings = [
        *(finding for person in people for finding in _unused(person, at, unused_after)),
        *(finding for one in access for finding in _expiring(one, at, expires_within)),
        *(finding for one in access for finding in _key_findings(one, owners)),
        *_unknown_grants(policy, people),
    ]
    findings.sort(key=lambda finding: (finding.severity != "act", finding.code, finding.subject))
    return Review(at, policy.place("version").rpartition(":")[0] or "policy", access, tuple(findings))


def access_of(policy: Policy, person: Person, datasets: Sequence[str], at: datetime) -> Access:
    """Say how one person comes by their access and what it amounts to."""
    name = person.user.name
    return Access(
        user=name,
        disabled=person.user.disabled,
        grants=grants_of(policy, name, at),
        keys=tuple(_key_line(policy, name, key, at) for key in person.keys),
        may=tuple(_may(policy, name, datasets, at)),
        last_login_at=person.last_login_at,
    )


def _key_line(policy: Policy, user: str, key: PublicKey, at: datetime) -> KeyLine:
    networks = policy.holders.effective_roles(user, at).networks
    address = str(networks[0][0][0].network_address) if networks else "192.0.2.1"  # RFC 5737: for documentation
    subject = Subject(user, address, key.algorithm, key.bits, key.fingerprint)
    decision = decide(policy, LoginRequest(subject, at))
    kind = f"{key.algorithm} {key.bits}" if "rsa" in key.algorithm else key.algorithm
    return KeyLine(
        key.fingerprint, kind, key.comment, key.added_at, key.last_used_at, decision.allowed, decision.reason
    )


def _may(policy: Policy, user: str, datasets: Sequence[str], at: datetime) -> Iterator[tuple[str, str]]:
    effective = policy.holders.effective_roles(user, at)
    limits = limits_of(policy, user, at)
    roles = [held.role for held in effective.held]
    yield "sessions", ", ".join(sorted({kind for role in roles for kind in role.sessions})) or "none"
    loopback, hosts = [], []
    for role in roles:
        loopback += ["the notebook"] if role.permit_open.notebook else []
        loopback += [str(role.permit_open.loopback)] if role.permit_open.loopback else []
        hosts += [f"{host}:{ports}" for host, ports in role.permit_open.hosts]
    yield "forwards", ", ".join(dict.fromkeys(loopback + hosts)) or "none"
    yield "datasets", ", ".join(datasets_of(policy, user, datasets, at)) or "none"
    if limits.shared:
        yield "shared volumes", ", ".join(map(str, limits.shared))
    yield "GPUs", f"{limits.gpus} ({', '.join(limits.gpu_profiles)})" if limits.gpus else "none"
    size = f"{show_size(limits.memory_bytes)}, {limits.cpus:g} processors"
    yield "environments", f"{limits.environments} of {size}" if limits.environments else "none"
    yield "egress", str(limits.egress)
    if limits.egress_hosts:
        yield "hosts by name", ", ".join(map(str, limits.egress_hosts))
    idle = show_duration(limits.idle_stop_seconds) if limits.idle_stop_seconds is not None else "never"
    yield "idle stop", idle
    level = level_held(effective)[0]
    if level in {"auditor", "admin"}:
        yield "page", f"of {whose(level)}"
    if limits.record_sessions:
        yield "recording", "terminals are recorded"


def _unused(person: Person, at: datetime, after: timedelta) -> Iterator[Finding]:
    name, created = person.user.name, person.user.created_at
    if person.user.disabled:
        return
    last = person.last_login_at
    if at - (last or created) > after:
        since = f"since {last:%Y-%m-%d}" if last else "ever"
        yield Finding("look", "user.unused", name, f"has not logged in {since}")
    for key in person.keys:
        if at - (key.last_used_at or key.added_at or created) > after:
            since = f"since {key.last_used_at:%Y-%m-%d}" if key.last_used_at else "ever"
            yield Finding("look", "key.unused", name, f"{key.fingerprint} was not used {since}")


def _expiring(access: Access, at: datetime, within: timedelta) -> Iterator[Finding]:
    for role, grant, until in access.grants:
        if until is not None and until - at <= within:
            message = f"the role {role} ends on {until:%Y-%m-%d %H:%M %Z} by {grant}"
            yield Finding("look", "grant.expiring", access.user, message)


def _key_findings(access: Access, owners: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    if not access.keys and not access.disabled:
        yield Finding("look", "user.without-key", access.user, "has no key and cannot log in")
    for key in access.keys:
        sharing = [owner for owner in owners[key.fingerprint] if owner != access.user]
        if sharing:
            message = f"{key.fingerprint} is also a key of {', '.join(sharing)}"
            yield Finding("act", "key.shared", access.user, message)
        if _is_weak(key.kind):
            yield Finding("act", "key.weak", access.user, f"{key.fingerprint} is {key.kind}")
        elif not key.accepted and not access.disabled and access.grants:
            yield Finding("look", "key.useless", access.user, f"{key.fingerprint} lets nobody in: {key.why}")


def _is_weak(kind: str) -> bool:
    algorithm, _, bits = kind.partition(" ")
    return algorithm == "ssh-dss" or ("rsa" in algorithm and int(bits or 0) < _WEAK_RSA_BITS)


def _unknown_grants(policy: Policy, people: Sequence[Person]) -> Iterator[Finding]:
    """Name grants to people who do not exist (yet): whoever is given that name will hold them."""
    known = {person.user.name for person in people}
    for user in policy.holders.users():
        if user not in known:
            rule = policy.holders.holdings(user)[0].rule
            yield Finding("look", "grant.without-user", user, f"is granted roles but does not exist: {rule}")


def _owners(people: Sequence[Person]) -> Mapping[str, Sequence[str]]:
    owners: dict[str, list[str]] = defaultdict(list)
    for person in people:
        for key in person.keys:
            owners[key.fingerprint].append(person.user.name)
    return owners


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
