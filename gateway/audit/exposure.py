"""Who could read a dataset in a span of time, and who did: from the journal and the kept policies alone.

Who had it mounted in an environment they used is known; which files they opened inside it is not recorded.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import merge
from pathlib import Path
from typing import Any

from gateway.audit.policy_history import InForce, in_force_between
from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from policies.reach import Reach, who_can

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class PermittedAccess:
    """Somebody the policy permitted the dataset at some time in the span."""

    user: str
    first_at: datetime
    reach: Reach
    policy_digest: str


@dataclass(frozen=True, slots=True)
class ActualAccess:
    """Somebody who was connected to an environment that had the dataset mounted.

    `openings` counts sessions and forwards that were open in the span, also those begun before it; `first_at` and
    `last_at` are when the first and the last of them was opened.
    """

    user: str
    environment: str
    mounted_since: datetime
    mounted_until: datetime | None
    openings: int
    first_at: datetime
    last_at: datetime
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """Both answers. `mounted` holds environments that had it, used or not."""

    dataset: str
    since: datetime
    until: datetime
    could: tuple[PermittedAccess, ...]
    did: tuple[ActualAccess, ...]
    mounted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints."""
        return {
            "version": 1,
            "dataset": self.dataset,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "could": [
                {**one.reach.as_dict(), "first_at": one.first_at.isoformat(), "policy_sha256": one.policy_digest}
                for one in self.could
            ],
            "did": [
                {
                    "user": one.user,
                    "environment": one.environment,
                    "mounted_since": one.mounted_since.isoformat(),
                    "mounted_until": one.mounted_until.isoformat() if one.mounted_until else None,
                    "openings": one.openings,
                    "first_at": one.first_at.isoformat(),
                    "last_at": one.last_at.isoformat(),
                    "addresses": list(one.addresses),
                }
                for one in self.did
            ],
            "mounted": list(self.mounted),
        }


@dataclass(slots=True)
class _Mounted:
    environment: str
    since: datetime
    until: datetime | None = None


@dataclass(slots=True)
class _Stay:
    """A session or forward: from its opening to its closing, or to what ended it without a record of its own."""

    opened: Record
    until: datetime | None = None

    def touches(self, begin: datetime, end: datetime) -> bool:
        return self.opened.at < end and (self.until is None or self.until > begin)


def exposure(journal: Path, archive: Path, dataset: str, since: datetime, until: datetime) -> Exposure:
    """Answer for one dataset and one span. Raises: JournalError, OSError, ValueError."""
    users = known_users(journal, until)
    could: dict[str, PermittedAccess] = {}
    for one in _moments(in_force_between(journal, archive, since, until), users, since, until):
        in_force, at = one
        people = sorted(users | set(in_force.policy.holders.users()))
        for reach in who_can(in_force.policy, people, f"dataset {dataset}", at):
            if reach.decision.allowed:
                could.setdefault(reach.user, PermittedAccess(reach.user, at, reach, in_force.digest))
    mounted = [one for one in _mounts(journal, dataset, until) if one.until is None or one.until > since]
    did = tuple(_did(journal, mounted, since, until))
    names = tuple(dict.fromkeys(one.environment for one in mounted))
    return Exposure(dataset, since, until, tuple(could[user] for user in sorted(could)), did, names)


def known_users(journal: Path, until: datetime) -> set[str]:
    """Return every user the journal says was made before a moment."""
    return {
        str(record.detail.get("user", "")) for record in stream(journal, Filter(action="user.created", until=until))
    }


def _moments(
    policies: Iterable[InForce], users: set[str], since: datetime, until: datetime
) -> Iterator[tuple[InForce, datetime]]:
    """Yield each policy with every moment in its span at which somebody's roles may differ."""
    several = list(policies)
    ends = [*(one.since for one in several[1:]), until]
    for one, end in zip(several, ends, strict=True):
        begin = max(since, one.since)
        holders = one.policy.holders
        edges = {
            edge
            for user in {*holders.users(), *users}
            for holding in holders.holdings(user)
            for edge in (holding.begins, holding.ends)
            if edge is not None and begin < edge < end
        }
        yield from ((one, at) for at in sorted({begin, end - _MOMENT} | edges))


def _mounts(journal: Path, dataset: str, until: datetime) -> list[_Mounted]:
    """Follow every environment's life: what it was created with, and when it was deleted."""
    asked: dict[str, str] = {}
    mounted: list[_Mounted] = []
    for record in _merged(journal, ("create.allowed", "environment.created", "environment.deleted"), until):
        name = record.environment
        if record.code == "create.allowed":
            asked[name] = str(record.detail.get("datasets") or "")
        elif record.code == "environment.created":
            datasets = str(record.detail.get("datasets") or asked.get(name, ""))
            if dataset in datasets.split(","):
                mounted.append(_Mounted(name, record.at))
        else:
            for one in mounted:
                if one.environment == name and one.until is None:
                    one.until = record.at
    return mounted


def _merged(journal: Path, codes: tuple[str, ...], until: datetime) -> Iterator[Record]:
    """Yield the records of several codes in their order."""
    each = (stream(journal, Filter(action=code, until=until)) for code in codes)
    return merge(*each, key=lambda record: record.number)


def _did(journal: Path, mounted: list[_Mounted], since: datetime, until: datetime) -> Iterator[ActualAccess]:
    stays = _stays(journal, {one.environment for one in mounted}, until)
    for one in mounted:
        begin, end = max(one.since, since), min(one.until or until, until)
        here = [stay for stay in stays if stay.opened.environment == one.environment]
        inside = [stay.opened for stay in here if stay.touches(begin, end)]
        for user in sorted({record.actor["name"] for record in inside}):
            theirs = [record for record in inside if record.actor["name"] == user]
            times = [record.at for record in theirs]
            addresses = tuple(sorted({record.actor["address"] for record in theirs if record.actor["address"]}))
            yield ActualAccess(
                user, one.environment, one.since, one.until, len(theirs), min(times), max(times), addresses
            )


_ENDS_ALL_OF_ONE = ("environment.stopped", "environment.deleted")


def _stays(journal: Path, environments: set[str], until: datetime) -> list[_Stay]:
    """Pair openings with closings, oldest with oldest of the same user, environment and kind.

    A gateway that starts has nobody in it, which ends what a crash left open. A worker beside others says so of
    itself alone: there a stay whose end was lost counts as open until its environment stops.
    """
    stays: list[_Stay] = []
    going: dict[tuple[str, str, str], list[_Stay]] = {}
    codes = ("session.opened", "session.closed", "forward.opened", "forward.closed", "gateway.started")
    for record in _merged(journal, (*codes, *_ENDS_ALL_OF_ONE), until):
        kind, _, what = record.code.partition(".")
        key = (record.environment, record.actor["name"], kind)
        if record.code == "gateway.started" and "worker" not in record.detail:
            _end(going, lambda _key: True, record.at)
        elif record.code in _ENDS_ALL_OF_ONE:
            _end(going, lambda one, record=record: one[0] == record.environment, record.at)  # type: ignore[misc]  # a default binds it now
        elif record.environment not in environments:
            continue
        elif what == "opened":
            stays.append(_Stay(record))
            going.setdefault(key, []).append(stays[-1])
        elif what == "closed" and going.get(key):
            going[key].pop(0).until = record.at
    return stays


def _end(
    going: dict[tuple[str, str, str], list[_Stay]], which: Callable[[tuple[str, str, str]], bool], at: datetime
) -> None:
    for key in [key for key in going if which(key)]:
        for stay in going.pop(key):
            stay.until = at
