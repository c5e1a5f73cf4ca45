"""Points in time from flags, and as tables show them; in UTC, as the journal is."""

from datetime import UTC, datetime

from gateway.config.moments import parse_moment


def moment_from(flag: str, text: str | None) -> datetime | None:
    """Return the moment, or None where nothing was said. Raises: UsageError `moment.bad`."""
    return None if text is None else parse_moment(text, flag, datetime.now(UTC))


def require_moment(flag: str, text: str) -> datetime:
    """Return the moment. Raises: UsageError `moment.bad`."""
    return parse_moment(text, flag, datetime.now(UTC))


def day(moment: datetime | None, otherwise: str = "-") -> str:
    """Write a moment's day, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d") if moment else otherwise


def minute(moment: datetime | None, otherwise: str = "-") -> str:
    """Write a moment to the minute, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else otherwise
