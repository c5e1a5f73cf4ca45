"""Connections that have ended: whose, how long, and why, from the journal alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit import events
from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.past_connections import PastConnection, past_connections
from gateway.model import Actor, UserName

ADMIN = Actor("admin", "root")
GATEWAY = Actor("gateway", "devgw")
ALICE = Actor("user", "alice", "SHA256:k", "192.0.2.7")
NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)
A = "aaaa0000"


def minutes(count: int) -> datetime:
    return NOON + timedelta(minutes=count)


def closed(connection: str, at: datetime, reason: str, actor: Actor = ALICE) -> Event:
    made = events.connection_closed(actor, actor.name, connection, 300, 20, 60.0, reason)
    return Event(made.code, made.actor, made.environment, reason=made.reason, detail=made.detail, at=at)


def ended(directory: Path, *happened: Event, user: str = "") -> list[PastConnection]:
    journal = Journal(directory)
    for event in happened:
        journal.append(event)
    journal.close()
    return list(past_connections(directory, NOON, minutes(60), UserName(user) if user else None))


def test_a_connection_that_its_user_closed(directory: Path) -> None:
    (one,) = ended(directory, closed(A, minutes(5), "closed by the client"))
    assert (one.id, one.user, one.address, one.fingerprint) == (A, "alice", "192.0.2.7", "SHA256:k")
    assert (one.since, one.until, one.sent_bytes, one.received_bytes) == (minutes(4), minutes(5), 300, 20)
    assert (one.ended_by, one.reason) == ("client", "closed by the client")


def test_an_administrator_who_ended_it_is_named_with_what_they_said(directory: Path) -> None:
    detail: events.Detail = {"user": "alice", "connection": A, "reason": "maintenance"}
    (one,) = ended(
        directory,
        Event("session.killed", ADMIN, "alice", detail=detail, at=minutes(4)),
        closed(A, minutes(5), "ended by an administrator: maintenance"),
    )
    assert (one.ended_by, one.reason) == ("root", "ended by root: maintenance")


@pytest.mark.parametrize(("what", "shown"), [("connection", True), ("forward localhost:6006", False)])
def test_what_was_no_longer_allowed_says_so_with_the_rule(directory: Path, what: str, shown: bool) -> None:
    """A single forward that was revoked did not end the connection."""
    revoked = Event(
        "session.revoked",
        ALICE,
        "alice",
        "denied",
        "roles.member",
        "outside the hours",
        {"connection": A, "what": what},
        at=minutes(4),
    )
    (one,) = ended(directory, revoked, closed(A, minutes(5), "closed by the client"))
    reason = "no longer allowed: outside the hours (rule: roles.member)" if shown else "closed by the client"
    assert one.reason == reason


@pytest.mark.parametrize(("detail", "count"), [({}, 1), ({"worker": 2}, 0)], ids=["gateway", "one worker of several"])
def test_what_a_crash_left_ended_when_the_gateway_began_anew(
    directory: Path, detail: events.Detail, count: int
) -> None:
    opened = Event("session.opened", ALICE, "alice", detail={"connection": A}, at=minutes(1))
    found = ended(directory, opened, Event("gateway.started", GATEWAY, detail=detail, at=minutes(9)))
    assert [(one.since, one.until, one.ended_by) for one in found] == [(minutes(1), minutes(9), "")] * count


def test_a_gateway_that_said_that_it_ends_has_closed_everything(directory: Path) -> None:
    """Nothing before the span is read for it, however long the journal; another one of the site lost what it had."""
    theirs: events.Detail = {"gateway": "two"}
    happened = (
        Event("gateway.started", GATEWAY, at=minutes(-90)),
        Event("session.opened", ALICE, "alice", detail={"connection": A}, at=minutes(-80)),
        Event("gateway.stopped", GATEWAY, at=minutes(1)),
        Event("gateway.started", GATEWAY, at=minutes(2)),
        closed("later", minutes(5), "closed by the client"),
    )
    assert [one.id for one in ended(directory, *happened)] == ["later"]
    lost = (
        Event("gateway.started", GATEWAY, detail=theirs, at=minutes(10)),
        Event("session.opened", ALICE, "alice", detail={"connection": "lost"}, at=minutes(11)),
        Event("gateway.started", GATEWAY, detail=theirs, at=minutes(12)),
    )
    assert "lost" in [one.id for one in ended(directory, *lost)]


def test_only_the_span_and_the_user_that_were_asked_for(directory: Path) -> None:
    bob = Actor("user", "bob", "SHA256:b", "192.0.2.8")
    happened = (
        closed("early", minutes(-5), "closed by the client"),
        closed("mine", minutes(5), "closed by the client"),
        closed("bobs", minutes(6), "closed by the client", bob),
        closed("late", minutes(61), "closed by the client"),
    )
    assert [one.id for one in ended(directory, *happened, user="alice")] == ["mine"]
