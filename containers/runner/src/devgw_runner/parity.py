"""The parity gate: what was compiled must compute the loss and the gradients that eager execution computes.

Without dropout the two are compared directly, within what rounding explains. Dropout makes both of them random
numbers; then several draws of each are compared by their means and their measured spread. See `ladder` for
compiling and falling.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from devgw_runner.precision import AUTOCAST_DTYPES, GRADIENT_TOLERANCE, PARITY_TOLERANCE

STOCHASTIC_DRAWS = 16
# Of a further draw beside sixteen (Student's t, 15 degrees of freedom), one in forty thousand lies beyond six.
STOCHASTIC_ERRORS = 6.0
DIRECTION_DRAWS = 4  # of their own, because a draw is never independent of a mean that it is part of
GRADIENT_DRAWS = 6
# Student's t with 10 degrees of freedom lies beyond twelve once in three million, and a model has hundreds of tensors.
GRADIENT_ERRORS = 12.0
ROUNDING_ERRORS = 3.0
FLOOR = 0.01  # of the tolerance, and of all gradients together: a bias before a batch norm has rounding only


class ParityError(Exception):
    """A rung computes another loss or another gradient than the eager one."""


@dataclass(frozen=True)
class Draw:
    """One forward and backward pass: the loss, and each parameter's gradient (of this process's shard)."""

    loss: float
    gradients: dict[str, Tensor]


DrawFunction = Callable[[], Draw]


@dataclass(frozen=True)
class Reference:
    """What eager execution computes. `draws` are of several passes, empty if one is like another.

    `rounding` is each gradient's distance from the one computed in fp32, 0 where that is the precision.
    """

    losses: list[float]
    gradients: dict[str, Tensor]
    rounding: dict[str, float]
    draws: list[dict[str, tuple[float, float]]]


def take_reference(losses: list[float], draw: DrawFunction, draw_in_fp32: DrawFunction, precision: str) -> Reference:
    """Take the eager gradients, once if the losses are all equal, else often enough to know their spread."""
    if len(set(losses)) == 1:
        eager = draw().gradients
        exact = draw_in_fp32().gradients if precision in AUTOCAST_DTYPES else eager
        return Reference(losses, eager, {name: _distance(eager[name], exact[name]) for name in eager}, [])
    sums = draw().gradients
    for _ in range(DIRECTION_DRAWS - 1):
        for name, gradient in draw().gradients.items():
            sums[name] = sums[name] + gradient
    mean = {name: total / DIRECTION_DRAWS for name, total in sums.items()}
    return Reference(losses, mean, {}, [_measure(draw(), mean) for _ in range(GRADIENT_DRAWS)])


def check_parity(draw: DrawFunction, reference: Reference, precision: str) -> None:
    """Compare what `draw` computes with the reference.

    Raises:
        ParityError: it names what differs, by how much, and how much is allowed.
    """
    first = draw()
    check_loss(first.loss, reference.losses, precision)
    tolerance = GRADIENT_TOLERANCE[precision]
    floor = FLOOR * tolerance * math.sqrt(sum(_size(gradient) ** 2 for gradient in reference.gradients.values()))
    if not reference.draws:
        for name, expected in reference.gradients.items():
            allowed = ROUNDING_ERRORS * reference.rounding[name] + tolerance * _size(expected) + floor
            _require(name, _distance(first.gradients[name], expected), allowed)
        return
    draws = [_measure(first, reference.gradients)]
    draws += [_measure(draw(), reference.gradients) for _ in range(GRADIENT_DRAWS - 1)]
    for name in reference.gradients:
        for index in (0, 1):  # along the mean gradient, and in length
            own, eager = ([measured[name][index] for measured in some] for some in (draws, reference.draws))
            spread = math.sqrt((statistics.variance(own) + statistics.variance(eager)) / GRADIENT_DRAWS)
            expected_mean = statistics.fmean(eager)
            allowed = GRADIENT_ERRORS * spread + tolerance * abs(expected_mean) + floor
            _require(name, abs(statistics.fmean(own) - expected_mean), allowed)


def check_loss(loss: float, reference: list[float], precision: str) -> None:
    """Compare with the eager loss; where dropout makes that a random number, allow its measured spread.

    Raises:
        ParityError: it gives both losses and the tolerance.
    """
    expected = statistics.fmean(reference)
    tolerance = PARITY_TOLERANCE[precision] * max(abs(expected), 1e-3)
    if len(reference) > 1:
        tolerance += STOCHASTIC_ERRORS * statistics.stdev(reference) * math.sqrt(1 + 1 / len(reference))
    if not abs(loss - expected) <= tolerance:
        raise ParityError(f"loss {loss:.6g} differs from the eager {expected:.6g} by more than {tolerance:.2g}")


def _require(name: str, differs: float, allowed: float) -> None:
    if not differs <= allowed:  # a NaN is not less than anything
        raise ParityError(
            f"the gradient of {name} differs from the eager one by {differs:.3g}, {allowed:.2g} is allowed"
        )


def _measure(draw: Draw, direction: dict[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Return each gradient's component along the mean gradient, and its length: two numbers with little spread."""
    measured = {}
    for name, gradient in draw.gradients.items():
        length = _size(direction[name])
        along = float((gradient * direction[name]).sum()) / length if length else 0.0
        measured[name] = (along, _size(gradient))
    return measured


def _size(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


def _distance(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one - other))
