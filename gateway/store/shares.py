"""How much of the GPUs somebody had lately: GPU-hours that halve each week, in a form that time does not change.

An hour at time t weighs 2^(t/half-life), and a share is the log2 of the sum. As every share decays alike, their order
is the order of these numbers at any later time, and the queue is sorted without touching a row.
"""

from datetime import UTC, datetime
from math import inf, log, log2

HALF_LIFE_HOURS = 7 * 24
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = -inf


def log_hours(begin: datetime, end: datetime, gpus: int = 1) -> float:
    """Return the share that holding GPUs from `begin` to `end` gives."""
    first, last = _half_lives(begin), _half_lives(end)
    if last <= first or not gpus:
        return NOTHING
    # the integral of 2^t from first to last, in logarithms since 2^t itself overflows after some decades
    return log2(gpus * HALF_LIFE_HOURS / log(2)) + last + log2(1 - 2 ** (first - last))


def added(one: float, other: float) -> float:
    """Return the sum of two shares."""
    low, high = sorted((one, other))
    return high if low == NOTHING else high + log2(1 + 2 ** (low - high))


def decayed_hours(share: float, at: datetime) -> float:
    """Return a share as people read it: GPU-hours, an hour of a week ago counting half."""
    return 0.0 if share == NOTHING else float(2 ** (share - _half_lives(at)))


def _half_lives(moment: datetime) -> float:
    return (moment - _EPOCH).total_seconds() / 3600 / HALF_LIFE_HOURS
