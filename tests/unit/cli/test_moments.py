"""Points in time as they are typed."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.config.moments import parse_moment
from gateway.errors import UsageError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("2026-11-01T08:30+02:00", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        ("2026-11-01T08:30Z", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read(text: str, moment: datetime) -> None:
    found = parse_moment(text, "--since", NOW)
    assert (found, found.tzinfo) == (moment, UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "7 days", "2026-13-01", "99999999999999d", "-7d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_moment(text, "--since", NOW)
    assert refused.value.code == "moment.bad"
