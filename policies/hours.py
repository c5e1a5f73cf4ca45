"""Weekly hours: `mon-fri 08:00-20:00`, read in the policy's time zone, summer time included."""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """Days and minutes of the day; `last_minute` is excluded. A window past midnight belongs to the day it began."""

    days: frozenset[int]
    first_minute: int
    last_minute: int

    def covers(self, local: datetime) -> bool:
        """Say whether a local wall-clock time lies inside."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.first_minute < self.last_minute:
            return day in self.days and self.first_minute <= minute < self.last_minute
        began_today = day in self.days and minute >= self.first_minute
        return began_today or ((day - 1) % 7 in self.days and minute < self.last_minute)

    def __str__(self) -> str:
        first = next((day for day in range(7) if day in self.days and (day - 1) % 7 not in self.days), 0)
        last = (first + len(self.days) - 1) % 7
        days = DAYS[first] if first == last else f"{DAYS[first]}-{DAYS[last]}"
        clock = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (self.first_minute, self.last_minute))
        return f"{days} {clock}"


def parse_hours(value: object) -> Hours:
    """Read `DAY[-DAY] HH:MM-HH:MM`. Raises: ValueError."""
    if isinstance(value, Hours):
        return value
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] not in DAYS or (match[2] or match[1]) not in DAYS:
        raise ValueError(f"weekly hours are written 'mon-fri 08:00-20:00', not {value!r}")
    first_day, last_day = DAYS.index(match[1]), DAYS.index(match[2] or match[1])
    days = frozenset((first_day + step) % 7 for step in range((last_day - first_day) % 7 + 1))
    first, last = int(match[3]) * 60 + int(match[4]), int(match[5]) * 60 + int(match[6])
    if max(int(match[4]), int(match[6])) > 59 or first >= _DAY_MINUTES or last > _DAY_MINUTES or first == last:
        raise ValueError(f"{value!r} is no span of a day")
    return Hours(days, first, last)


def check_time_zone(name: str) -> str:
    """Accept an IANA name this machine knows. Raises: ValueError."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, ill-formed, or a directory of the database
        raise ValueError(f"{name!r} is no time zone this machine knows; write one such as 'Europe/Berlin'") from None
    return name


def check_moment(value: object) -> date:
    """Accept a TOML date or date-time. Raises: ValueError."""
    if not isinstance(value, date):
        raise ValueError("write a date, 2026-12-20, or a date-time, 2026-12-20T18:00:00+01:00, without quotes")  # noqa: TRY004  # pydantic collects ValueError only
    return value


def begins_at(moment: date, zone: tzinfo) -> datetime:
    """Return the instant a `from` names: the start of a date; a time without zone is read in the policy's."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time(), zone)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def ends_at(moment: date, zone: tzinfo) -> datetime:
    """Return the first instant an `until` excludes: a date counts to its end."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment + timedelta(days=1), time(), zone)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


WeeklyHours = Annotated[Hours, BeforeValidator(parse_hours)]
TimeZone = Annotated[str, AfterValidator(check_time_zone)]
