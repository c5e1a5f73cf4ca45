"""Connections that have ended, as the journal tells it: whose, from where, how long, and why they ended."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from gateway.audit.presence import last_empty_start
from gateway.audit.read import Filter, of_codes, stream
from gateway.audit.record import Record
from gateway.model import UserName

_BEGIN = ("session.opened", "forward.opened")
_WHY = ("session.killed", "session.revoked")
_WHY_BEFORE = timedelta(hours=1)
"""A connection ends within seconds of these."""


@dataclass(frozen=True, slots=True)
class PastConnection:
    """One that has ended. `ended_by` is `client`, `gateway`, an administrator's name, or empty where it was lost.

    `since` of one that the gateway lost (kill -9, power) is when its first channel was opened; its bytes are 0.
    """

    id: str
    user: str
    fingerprint: str
    address: str
    environment: str
    since: datetime
    until: datetime
    sent_bytes: int
    received_bytes: int
    reason: str
    ended_by: str


@dataclass(slots=True)
class _Known:
    """What is known of connections whose end is not reached yet."""

    killed: dict[str, tuple[str, str]] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    begun: dict[str, Record] = field(default_factory=dict)


def past_connections(
    journal: Path, since: datetime, until: datetime, user: UserName | None = None
) -> Iterator[PastConnection]:
    """Yield connections that were there in a span and have ended before its end. Raises: OSError, ValueError.

    The record of an end says all of a connection, so the span alone is read. Only where a gateway was lost in it is it
    read back to the start before: what was open then has no such record.
    """
    known = _Known()
    codes = (*_BEGIN, *_WHY, "connection.closed", "gateway.started")
    if _is_lost_within(journal, since, until):
        records = of_codes(journal, codes, until, after=last_empty_start(journal, since, until))
    else:
        wanted = Filter(codes=frozenset({*_WHY, "connection.closed"}), since=since - _WHY_BEFORE, until=until)
        records = stream(journal, wanted)
    for record in records:
        for ended in _follow(known, record):
            if ended.until > since and (user is None or ended.user == user):
                yield ended


def _is_lost_within(journal: Path, since: datetime, until: datetime) -> bool:
    """Say whether a gateway started in a span that had not said before that it ends."""
    runs: dict[object, str] = {}
    for record in stream(journal, Filter(codes=frozenset({"gateway.started", "gateway.stopped"}), until=until)):
        if "worker" in record.detail:
            continue
        gateway = record.detail.get("gateway")
        if record.code == "gateway.started" and runs.get(gateway) != "gateway.stopped" and record.at > since:
            return True
        runs[gateway] = record.code
    return False


def _follow(known: _Known, record: Record) -> Iterator[PastConnection]:
    connection = str(record.detail.get("connection") or "")
    if record.code == "gateway.started":
        if "worker" not in record.detail:
            yield from (_lost(one, record.at) for one in known.begun.values())
            known.begun.clear()
    elif record.code == "session.killed":
        known.killed[connection] = (record.actor["name"], str(record.detail.get("reason") or ""))
    elif record.code == "session.revoked":
        if record.detail.get("what") == "connection":
            known.revoked[connection] = f"{record.reason} (rule: {record.rule})" if record.rule else record.reason
    elif record.code == "connection.closed":
        known.begun.pop(connection, None)
        yield _closed(known, connection, record)
    elif connection:
        known.begun.setdefault(connection, record)


def _closed(known: _Known, connection: str, record: Record) -> PastConnection:
    reason, ended_by = record.reason, "client" if record.reason == "closed by the client" else "gateway"
    if (revoked := known.revoked.pop(connection, "")) != "":
        reason, ended_by = f"no longer allowed: {revoked}", "gateway"
    if connection in known.killed:
        ended_by, said = known.killed.pop(connection)
        reason = f"ended by {ended_by}{': ' if said else ''}{said}"
    began = record.at - timedelta(seconds=float(record.detail.get("seconds") or 0))
    return _of(
        record,
        connection,
        began,
        reason,
        ended_by,
        int(record.detail.get("sent_bytes") or 0),
        int(record.detail.get("received_bytes") or 0),
    )


def _lost(opened: Record, at: datetime) -> PastConnection:
    lost = _of(opened, str(opened.detail["connection"]), opened.at, "the gateway ended without a word", "", 0, 0)
    return replace(lost, until=at)


def _of(
    record: Record, connection: str, began: datetime, reason: str, ended_by: str, sent: int, received: int
) -> PastConnection:
    actor = record.actor
    return PastConnection(
        connection,
        actor["name"],
        actor["key"],
        actor["address"],
        record.environment,
        began,
        record.at,
        sent,
        received,
        reason,
        ended_by,
    )
