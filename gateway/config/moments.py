"""Reads points in time as people write them: `7d` ago, a day, or a moment; in UTC, as the journal is."""

from datetime import UTC, datetime, timedelta

from gateway.config import parse_duration
from gateway.errors import UsageError


def parse_moment(text: str, flag: str, now: datetime) -> datetime:
    """Return the moment in UTC: `7d`, `90m` before now, `2026-11-01`, `2026-11-01T08:30`.

    Raises:
        UsageError: `moment.bad`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            raise UsageError(
                "moment.bad", f"{flag}: {text[:40]!r} is no moment", f"for example {flag} 7d or {flag} 2026-11-01"
            ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
