"""Journals written segment by segment, and what is asked of them."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.read import Filter
from gateway.audit.record import GENESIS, encode, finish
from gateway.audit.segments import segment_path
from gateway.model import Actor

NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)
GATEWAY = Actor("gateway", "journal")
HOUR = timedelta(hours=1)
USERS = ("alice", "bob", "carol", 'd"ave', "größe", "o\x7fdd", "back\\slash")


def write_segments(directory: Path, parts: list[list[Event]]) -> Path:
    """Write a journal whose segments hold just these events, also at times at which the gateway's own clock was not."""
    directory.mkdir(parents=True, exist_ok=True)
    number, digest = 0, GENESIS
    for place, events in enumerate(parts):
        opened = Event(
            "journal.opened",
            GATEWAY,
            detail={"previous_seq": number, "previous_hash": digest.hex()},
            at=events[0].at,
        )
        sealed = [Event("journal.sealed", GATEWAY, at=events[-1].at)] if place + 1 < len(parts) else []
        path = segment_path(directory, number + 1)
        with path.open("wb") as file:
            for event in [opened, *events, *sealed]:
                number += 1
                line, digest = finish(number, encode(event), digest)
                file.write(line)
    return directory


def act(at: datetime, user: str = "alice", code: str = "session.opened", **fields: object) -> Event:
    plain = {"environment": user, "decision": "allowed" if code.endswith("allowed") else ""} | fields
    return Event(code, Actor("user", user, "SHA256:x", "192.0.2.7"), at=at, **plain)  # type: ignore[arg-type]


def hourly(hours: Iterator[int] | range, **fields: object) -> list[Event]:
    return [act(NOON + hour * HOUR, **fields) for hour in hours]  # type: ignore[arg-type]


def crowded_journal(directory: Path) -> Path:
    """5,000 acts of seven users over five segments, some refused, some upon another user, at times in no order."""
    dice = random.Random(16)
    codes = ("login.allowed", "forward.denied", "session.opened", "key.added", "login.refused", "gateway.started")
    codes += ("user.renamed", "environment.renamed")

    def one(number: int) -> Event:
        code, user = dice.choice(codes), dice.choice(USERS)
        detail = {"user": dice.choice(USERS)} if code == "key.added" else {"n": number, "said": '"user":"alice"'}
        if code.endswith(".renamed"):
            detail = {"to": dice.choice(USERS) + dice.choice(("", "+new"))}
        return act(
            NOON + dice.uniform(0, 100) * HOUR,
            user,
            code,
            environment=dice.choice(["", user, f"{dice.choice(USERS)}+proj"]),
            decision="denied" if code == "forward.denied" else "",
            reference=f"ref{number}" if code == "forward.denied" else "",
            detail=detail,
        )

    return write_segments(directory, [[one(1000 * part + n) for n in range(1000)] for part in range(5)])


QUESTIONS = [
    *(Filter(user=user) for user in (*USERS, "nobody", "alic")),
    Filter(action="forward.denied"),
    Filter(action="login"),
    Filter(action="*.opened"),
    Filter(denied=True),
    *(Filter(reference=f"ref{number}") for number in range(0, 200, 7)),
    Filter("alice", "key", NOON + 20 * HOUR, NOON + 60 * HOUR),
    Filter("bob", denied=True, since=NOON + 50 * HOUR),
    Filter(codes=frozenset({"login.allowed", "key.added"}), owners=frozenset({"alice", "größe"})),
    Filter(since=NOON + 99.5 * HOUR),
]
