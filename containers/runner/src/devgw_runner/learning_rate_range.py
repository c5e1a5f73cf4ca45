"""Find a learning rate: raise it step by step on a copy of the run, and see where the loss falls steepest.

The range test of Smith, arXiv:1506.01186. Nothing is saved; the training is the step of `loop`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SMOOTHING = 0.9
SMALLEST_FALL = 1e-3  # of the first loss, over a factor e of the rate: less is rounding
DIVERGED = 4.0  # times the smallest smoothed loss


@dataclass(frozen=True)
class Point:
    """One step of the test."""

    learning_rate: float
    loss: float
    smoothed: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class RangeTest:
    """The curve; `suggestion` is None where the loss never fell."""

    points: tuple[Point, ...]
    suggestion: float | None
    diverged_at: float | None


def rates_between(smallest: float, largest: float, count: int) -> list[float]:
    """Return `count` learning rates at equal ratios."""
    ratio = (largest / smallest) ** (1 / max(1, count - 1))
    return [smallest * ratio**index for index in range(count)]


def run_range_test(rates: list[float], step: Callable[[float], float]) -> RangeTest:
    """Call `step` with each rate, which trains one step and returns its loss, until the loss runs away."""
    points: list[Point] = []
    average, best = 0.0, math.inf
    diverged: float | None = None
    for index, rate in enumerate(rates):
        loss = step(rate)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING ** (index + 1))  # without the pull of the zero it began with
        if not math.isfinite(smoothed) or (index > 10 and smoothed > DIVERGED * best):
            diverged = rate
            break
        best = min(best, smoothed)
        points.append(Point(rate, loss, smoothed))
    return RangeTest(tuple(points), suggest(points), diverged)


def suggest(points: list[Point]) -> float | None:
    """Return the rate where the smoothed loss falls steepest over the logarithm of the rate."""
    if not points:
        return None
    steepest, where = -SMALLEST_FALL * abs(points[0].smoothed), None
    # The first points are still the average's own settling, the last ones the beginning of the end.
    for before, point, after in zip(points[8:], points[9:], points[10:], strict=False):
        slope = (after.smoothed - before.smoothed) / math.log(after.learning_rate / before.learning_rate)
        if slope < steepest:
            steepest, where = slope, point.learning_rate
    return where
