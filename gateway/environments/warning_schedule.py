"""When and why an environment ends by itself: its GPU lease is over, or nobody uses it. Pure.

Nobody is surprised: whatever the clock says, a first warning comes at least `late_seconds` before the end, and after
the end there is a grace, then time to save.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

Cause = Literal["lease", "idle", "drain", "image"]
WHY: Mapping[Cause, str] = {
    "lease": "its GPU lease ends",
    "idle": "nobody uses it",
    "drain": "its node is drained",
    "image": "it starts anew at once, with another image",
}
_CURES: Mapping[Cause, str] = {
    "lease": "ask for an extension to keep it",
    "idle": "use it to keep it",
    "drain": "save your work; it starts again where there is room",
    "image": "save your work and connect again then",
}


class Phase(StrEnum):
    """How near the end is; each is announced once."""

    QUIET = ""
    EARLY = "early"
    LATE = "late"
    GRACE = "grace"
    SAVE = "save"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class WarningSchedule:
    """How long before the end its users are warned, and how long after it they have."""

    early_seconds: int = 1800
    late_seconds: int = 300
    grace_seconds: int = 300
    save_seconds: int = 60

    def within(self, patience_seconds: int | None) -> "WarningSchedule":
        """Shorten the warnings where patience itself is short, so that nobody at work is warned of idleness."""
        if patience_seconds is None:
            return self
        early, late = min(self.early_seconds, patience_seconds // 2), min(self.late_seconds, patience_seconds // 4)
        return replace(self, early_seconds=early, late_seconds=late)


@dataclass(frozen=True, slots=True)
class Ending:
    """An end to come, its cause, and for idleness how long nobody may use the environment."""

    at: datetime
    cause: Cause
    patience_seconds: int | None = None


def ending_of(
    lease_ends_at: datetime | None,
    active_at: datetime,
    idle_stop_seconds: int | None,
    drained_at: datetime | None = None,
    restart_at: datetime | None = None,
) -> Ending | None:
    """Return the end that comes first, or None for an environment that may run on for ever."""
    endings = []
    if lease_ends_at is not None:
        endings.append(Ending(lease_ends_at, "lease"))
    if idle_stop_seconds is not None:
        endings.append(Ending(active_at + timedelta(seconds=idle_stop_seconds), "idle", idle_stop_seconds))
    if drained_at is not None:
        endings.append(Ending(drained_at, "drain"))
    if restart_at is not None:
        endings.append(Ending(restart_at, "image"))
    return min(endings, key=lambda ending: ending.at, default=None)


def phase_at(ending: Ending, warned_at: datetime | None, schedule: WarningSchedule, now: datetime) -> Phase:
    """Return how near the end is. `warned_at` is when its users were first told of this end."""
    schedule = schedule.within(ending.patience_seconds)
    late = timedelta(seconds=schedule.late_seconds)
    if warned_at is None and now >= ending.at - late:
        return Phase.LATE  # also long after the end: the gateway was away, and nobody was told
    due = ending.at if warned_at is None else max(ending.at, warned_at + late)
    save_at = due + timedelta(seconds=schedule.grace_seconds)
    begins = (
        (Phase.STOP, save_at + timedelta(seconds=schedule.save_seconds)),
        (Phase.SAVE, save_at),
        (Phase.GRACE, due),
        (Phase.LATE, due - late),
        (Phase.EARLY, due - timedelta(seconds=schedule.early_seconds)),
    )
    return next((phase for phase, begin in begins if now >= begin), Phase.QUIET)


def stop_time(ending: Ending, warned_at: datetime | None, schedule: WarningSchedule, now: datetime) -> datetime:
    """Return when the environment stops, if nothing changes until then."""
    schedule = schedule.within(ending.patience_seconds)
    first = warned_at or max(now, ending.at - timedelta(seconds=schedule.late_seconds))
    due = max(ending.at, first + timedelta(seconds=schedule.late_seconds))
    return due + timedelta(seconds=schedule.grace_seconds + schedule.save_seconds)


def announcement(phase: Phase, ending: Ending, stop_at: datetime, now: datetime) -> str:
    """Say it to the environment's users."""
    cause = WHY[ending.cause]
    if phase is Phase.SAVE:
        return f"your environment stops now ({cause}): running jobs are asked for a checkpoint; your files stay"
    minutes = max(1, round((stop_at - now).total_seconds() / 60))
    return f"your environment stops in {minutes} min ({cause}); your files stay; {_CURES[ending.cause]}"
