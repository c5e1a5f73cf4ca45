"""Who is connected and who was, for auditors; search is in what the lists show."""

from datetime import timedelta
from typing import Any

from gateway.audit.display import printable
from gateway.audit.past_connections import PastConnection, past_connections
from gateway.errors import JournalError
from gateway.model import UserName
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.paging import paged
from gateway.page.desk.site import Asker, Site
from gateway.page.desk.spans import span_asked
from gateway.readings import OfEach, Shared, shared_of
from gateway.store.sessions import LiveSession, OwnedSession

answers = Answers()
_PAST = timedelta(days=1)
CONNECTED: OfEach[Site, Shared[list[OwnedSession]]] = shared_of(lambda site: site.live_sessions.all())
"""Read once a second for all who look."""


@answers.to("sessions.live", level="auditor")
def live(site: Site, _asker: Asker, search: str = "", page: int = 1) -> dict[str, Any]:
    """Return who is connected just now, oldest first; read once a second for all who look."""
    found = [_live(one.session) for one in CONNECTED.of(site).get()]
    return paged([one for one in found if _holds(one, search)], page, dict)


@answers.to("sessions.past", level="auditor")
def past(
    site: Site, _asker: Asker, search: str = "", user: str = "", since: str = "", until: str = "", page: int = 1
) -> dict[str, Any]:
    """Return connections that were there in a span and have ended, the last first; a day where nothing is said."""
    begin, end = span_asked(since, until, _PAST)
    journal, wanted = site.settings.all_journals, UserName(user.strip()) if user.strip() else None
    try:
        ended = list(past_connections(journal, begin, end, wanted)) if journal.exists() else []
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}", "'devgw audit verify'") from exc
    found = [described for one in reversed(ended) if _holds(described := _past(one), search)]
    return paged(found, page, dict) | {"since": begin.isoformat(), "until": end.isoformat()}


def _holds(row: dict[str, Any], search: str) -> bool:
    wanted = search.strip().casefold()
    return not wanted or any(wanted in str(value).casefold() for value in row.values())


def _live(session: LiveSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": printable(session.user),
        "key": printable(session.fingerprint),
        "address": printable(session.address),
        "environment": printable(session.environment),
        "channels": [printable(channel) for channel in session.channels[:20]],
        "more_channels": max(0, len(session.channels) - 20),
        "sent_bytes": session.sent_bytes,
        "received_bytes": session.received_bytes,
        "since": session.since.isoformat(),
    }


def _past(one: PastConnection) -> dict[str, Any]:
    return {
        "id": one.id,
        "user": printable(one.user),
        "key": printable(one.fingerprint),
        "address": printable(one.address),
        "environment": printable(one.environment),
        "since": one.since.isoformat(),
        "until": one.until.isoformat(),
        "sent_bytes": one.sent_bytes,
        "received_bytes": one.received_bytes,
        "reason": printable(one.reason),
        "ended_by": printable(one.ended_by),
    }
