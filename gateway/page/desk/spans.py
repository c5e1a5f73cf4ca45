"""Spans of time as a form asks for them; what is left out is a default."""

from datetime import UTC, datetime, timedelta

from gateway.config.moments import parse_moment
from gateway.errors import UsageError


def moment_asked(name: str, text: str) -> datetime | None:
    """Return a moment of a form, None where the field is empty. Raises: UsageError `moment.bad`."""
    return parse_moment(text.strip(), name, datetime.now(UTC)) if text.strip() else None


def span_asked(since: str, until: str, default: timedelta) -> tuple[datetime, datetime]:
    """Return beginning and end; without an end it is now. Raises: UsageError `moment.bad`, `time.bad`."""
    end = moment_asked("until", until) or datetime.now(UTC)
    begin = moment_asked("since", since) or end - default
    if end <= begin:
        raise UsageError("time.bad", "until is not after since", "a day is from 2026-05-03 until 2026-05-04")
    return begin, end
