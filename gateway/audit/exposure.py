"""Who could read a dataset in a span of time, and who did: from the journal and the kept policies alone.

Who had it mounted in an environment they used is known; which files they opened inside it is not recorded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.audit.policy_history import InForce, in_force_between
from gateway.audit.presence import STARTS, Run, Stay, runs_of, stays_in
from gateway.audit.read import of_codes
from gateway.audit.record import Record
from gateway.audit.segments import known_since
from policies.reach import Reach, who_can

_MOMENT = timedelta(microseconds=1)
_LIVES = ("create.allowed", "environment.created", *STARTS, "environment.deleted", "environment.renamed")


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
    `last_at` are when the first and the last of them was opened. `revoked` says why the gateway ended one of them in
    the span; empty when it ended none.
    """

    user: str
    environment: str
    mounted_since: datetime
    mounted_until: datetime | None
    openings: int
    first_at: datetime
    last_at: datetime
    addresses: tuple[str, ...]
    revoked: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """All three answers. `mounted` holds environments that had it, used or not; `ran` when these ran in the span.

    `known_since` is set where the journal was pruned: users, policies and environments that were there before, and of
    which nothing was written down since, are in none of the answers.
    """

    dataset: str
    since: datetime
    until: datetime
    could: tuple[PermittedAccess, ...]
    did: tuple[ActualAccess, ...]
    mounted: tuple[str, ...]
    ran: tuple[Run, ...] = ()
    known_since: datetime | None = None

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
                    "revoked": one.revoked,
                }
                for one in self.did
            ],
            "known_since": self.known_since.isoformat() if self.known_since else None,
            "mounted": list(self.mounted),
            "ran": [
                {
                    "environment": one.environment,
                    "since": one.since.isoformat(),
                    "until": one.until.isoformat() if one.until else None,
                    "started_by": one.started_by,
                }
                for one in self.ran
            ],
        }


@dataclass(slots=True)
class _Mounted:
    environment: str
    since: datetime
    until: datetime | None = None


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
    by_name = {name: [one for one in mounted if one.environment == name] for name in names}
    ran = tuple(
        run
        for run in runs_of(journal, set(names), until)
        if any(_overlap(one, run, since) for one in by_name[run.environment])
    )
    permitted = tuple(could[user] for user in sorted(could))
    return Exposure(dataset, since, until, permitted, did, names, ran, known_since(journal))


def known_users(journal: Path, until: datetime) -> set[str]:
    """Return every name the journal says a user had before a moment: renamed ones' old names too.

    One whose making was pruned is known from what came later: a key, an environment.
    """
    codes = ("user.created", "user.renamed", "user.enabled", "key.added", "environment.created", *STARTS)
    names = (
        (record.detail.get("user"), record.detail.get("to"), record.environment.partition("+")[0])
        for record in of_codes(journal, codes, until)
    )
    return {str(name) for several in names for name in several if name}


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


class _Mounts:
    """Where a dataset is mounted, as environments come, change their names and go."""

    def __init__(self) -> None:
        self.all: list[_Mounted] = []
        self._going: dict[str, list[_Mounted]] = {}

    def begin(self, environment: str, at: datetime) -> None:
        self.all.append(_Mounted(environment, at))
        self._going.setdefault(environment, []).append(self.all[-1])

    def is_in(self, environment: str) -> bool:
        return environment in self._going

    def end(self, record: Record) -> None:
        """Let it end in the record's environment; one that was renamed goes on with it."""
        ended = self._going.pop(record.environment, [])
        for one in ended:
            one.until = record.at
        if ended and record.code == "environment.renamed":
            self.begin(str(record.detail.get("to", "")), record.at)


def _mounts(journal: Path, dataset: str, until: datetime) -> list[_Mounted]:
    """Follow every environment's life: what it was created and started with, and when it was deleted."""
    asked: dict[str, str] = {}
    mounts = _Mounts()
    for record in of_codes(journal, _LIVES, until):
        name, datasets = record.environment, str(record.detail.get("datasets") or "")
        if record.code == "create.allowed":
            asked[name] = datasets
        elif record.code == "environment.created":
            if dataset in (datasets or asked.get(name, "")).split(","):
                mounts.begin(name, record.at)
        elif record.code not in STARTS:
            mounts.end(record)
        elif not mounts.is_in(name) and dataset in datasets.split(","):
            mounts.begin(name, record.at)  # the record of its creation was pruned
    return mounts.all


def _did(journal: Path, mounted: list[_Mounted], since: datetime, until: datetime) -> Iterator[ActualAccess]:
    stays: dict[str, list[Stay]] = {one.environment: [] for one in mounted}
    for stay in stays_in(journal, stays.keys(), since, until):
        stays[stay.opened.environment].append(stay)
    for one in mounted:
        begin, end = max(one.since, since), min(one.until or until, until)
        here = [stay for stay in stays[one.environment] if stay.touches(begin, end)]
        for user in sorted({stay.opened.actor["name"] for stay in here}):
            theirs = [stay for stay in here if stay.opened.actor["name"] == user]
            times = [stay.opened.at for stay in theirs]
            addresses = {stay.opened.actor["address"] for stay in theirs} - {""}
            revoked = [stay.revoked for stay in theirs if stay.revoked and stay.until and stay.until < until]
            yield ActualAccess(
                user,
                one.environment,
                one.since,
                one.until,
                len(theirs),
                min(times),
                max(times),
                tuple(sorted(addresses)),
                revoked[-1] if revoked else "",
            )


def _overlap(mounted: _Mounted, run: Run, since: datetime) -> bool:
    begin = max(mounted.since, since)
    return (mounted.until is None or run.since < mounted.until) and (run.until is None or run.until > begin)
