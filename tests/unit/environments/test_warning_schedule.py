"""When an environment ends by itself: nobody is surprised, whatever the clock and the gateway did."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.environments.warning_schedule import Ending, Phase, WarningSchedule, ending_of, phase_at, stop_time

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
SCHEDULE = WarningSchedule(early_seconds=1800, late_seconds=300, grace_seconds=300, save_seconds=60)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


@pytest.mark.parametrize(
    ("before_end", "phase"),
    [
        (31, Phase.QUIET),
        (30, Phase.EARLY),
        (5, Phase.LATE),
        (0, Phase.GRACE),
        (-4.9, Phase.GRACE),
        (-5, Phase.SAVE),
        (-5.9, Phase.SAVE),
        (-6, Phase.STOP),
        (-600, Phase.STOP),
    ],
)
def test_the_phases_follow_the_clock(before_end: float, phase: Phase) -> None:
    """Two warnings, the end, a grace, time to save, and only then the stop."""
    ending = Ending(NOW + minutes(before_end), "lease")
    assert phase_at(ending, ending.at - minutes(30), SCHEDULE, NOW) is phase


@pytest.mark.parametrize("before_end", [4, 0, -600])
def test_an_end_nobody_was_told_of_begins_with_a_warning(before_end: float) -> None:
    """The gateway was away while the lease ended: users get the late warning first, and its whole time."""
    ending = Ending(NOW + minutes(before_end), "lease")
    assert phase_at(ending, None, SCHEDULE, NOW) is Phase.LATE
    assert phase_at(ending, NOW, SCHEDULE, NOW + minutes(4.9)) is Phase.LATE
    assert phase_at(ending, NOW, SCHEDULE, NOW + minutes(5)) is Phase.GRACE
    assert phase_at(ending, NOW, SCHEDULE, NOW + minutes(11)) is Phase.STOP


@pytest.mark.parametrize("before_end", [600, 30, 5, 1, -600])
def test_the_stop_that_is_announced_is_the_stop_that_comes(before_end: float) -> None:
    """Not a second earlier, and not later."""
    ending = Ending(NOW + minutes(before_end), "idle")
    stop_at = stop_time(ending, None, SCHEDULE, NOW)
    warned_at = max(NOW, ending.at - minutes(30))
    assert phase_at(ending, warned_at, SCHEDULE, stop_at - timedelta(seconds=1)) is not Phase.STOP
    assert phase_at(ending, max(NOW, ending.at - minutes(5)), SCHEDULE, stop_at) is Phase.STOP


def test_the_end_that_comes_first_counts() -> None:
    """A lease may end while all work, and idleness while a lease lasts."""
    assert ending_of(NOW + minutes(10), NOW, 3600) == Ending(NOW + minutes(10), "lease")
    assert ending_of(NOW + minutes(90), NOW, 3600) == Ending(NOW + minutes(60), "idle", 3600)
    assert ending_of(None, NOW, None) is None


def test_patience_that_is_short_shortens_the_warnings() -> None:
    """With an idle stop of ten minutes, whoever has just worked is not told that nobody does."""
    ending = ending_of(None, NOW, 600)
    assert ending is not None
    assert phase_at(ending, None, SCHEDULE, NOW + minutes(4.9)) is Phase.QUIET
    assert phase_at(ending, None, SCHEDULE, NOW + minutes(5)) is Phase.EARLY
    assert phase_at(ending, NOW + minutes(5), SCHEDULE, NOW + minutes(7.5)) is Phase.LATE
