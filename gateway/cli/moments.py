"""Reads points in time from flags: a day or a full ISO time, in UTC unless it says otherwise."""

from datetime import UTC, datetime

from gateway.errors import UsageError


def moment_from(flag: str, text: str | None) -> datetime | None:
    """Return the moment, or None where nothing was said. Raises: UsageError `time.bad`."""
    if text is None:
        return None
    from gateway.audit.read import utc

    try:
        return utc(text)
    except ValueError as exc:
        raise UsageError(
            "time.bad", f"{flag}: {text!r} is no time", "write 2026-05-03 or 2026-05-03T14:00:00+02:00"
        ) from exc


def require_moment(flag: str, text: str) -> datetime:
    """Return the moment. Raises: UsageError `time.bad`."""
    moment = moment_from(flag, text)
    assert moment is not None  # noqa: S101 - a text was given
    return moment


def day(moment: datetime | None, otherwise: str = "-") -> str:
    """Write a moment's day, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d") if moment else otherwise


def minute(moment: datetime | None, otherwise: str = "-") -> str:
    """Write a moment to the minute, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else otherwise
