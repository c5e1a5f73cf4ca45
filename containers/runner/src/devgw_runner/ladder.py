"""The ladder: compiled, then aot_eager, then eager; each fall is recorded with its cause.

The rung above, the whole-step CUDA graph, is `graphs`' and stands on whichever rung holds here.
A trial leaves no trace: gradients, buffers and random state are put back.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from devgw_runner.precision import PARITY_TOLERANCE, AutocastFactory
from devgw_runner.randomness import untouched_randomness
from devgw_runner.task import LossStep
from devgw_runner.time_limit import CompileTimeoutError, time_limit

STOCHASTIC_DRAWS = 16
# Of a further draw beside sixteen (Student's t, 15 degrees of freedom), one in forty thousand lies beyond six.
STOCHASTIC_ERRORS = 6.0


class Rung(StrEnum):
    GRAPH = "graph"
    COMPILED = "compiled"
    AOT_EAGER = "aot_eager"
    EAGER = "eager"


COMPILE_RUNGS = (Rung.COMPILED, Rung.AOT_EAGER)


@dataclass(frozen=True)
class Fall:
    """Why a rung was left: the exception's class, its first cause line, the seconds it cost."""

    rung: str
    cause: str
    line: str
    seconds: float


@dataclass
class Climb:
    """The outcome of warm-up."""

    rung: Rung
    seconds: float = 0.0
    falls: list[Fall] = field(default_factory=list)
    eager_loss: float | None = None


class ParityError(Exception):
    """A rung computes another loss than the eager one."""


@dataclass(frozen=True)
class Trial:
    """What a rung is tried with: the step, one batch, the precision, the compile mode, the time limit."""

    step: LossStep
    batch: Any
    precision: str
    autocast: AutocastFactory
    mode: str
    timeout_seconds: float
    compile_targets: tuple[nn.Module, ...]


def climb(trial: Trial, agree: Callable[[bool], bool]) -> Climb:
    """Find the highest rung that compiles in time and computes the eager loss; leave it compiled.

    `agree` says whether every process succeeded. A stop signal (StopRequested) passes through.
    """
    started = time.perf_counter()
    result = Climb(rung=Rung.EAGER)
    reference = _eager_losses(trial)
    result.eager_loss = statistics.fmean(reference)
    for rung in COMPILE_RUNGS:
        fall = _try_rung(rung, trial, reference)
        if agree(fall is None):
            result.rung = rung
            break
        result.falls.append(fall or Fall(rung, "OtherProcess", "another process fell", 0.0))
        _undo_compile(trial)
    result.seconds = time.perf_counter() - started
    return result


def _try_rung(rung: Rung, trial: Trial, reference: list[float]) -> Fall | None:
    started = time.perf_counter()
    try:
        _compile_targets(rung, trial)
        with time_limit(trial.timeout_seconds):
            loss = rehearse(trial.step, trial.batch, trial.autocast)
        _check_parity(loss, reference, trial.precision)
    except torch.OutOfMemoryError:
        raise  # a smaller batch is the remedy, not a lower rung
    except (Exception, CompileTimeoutError) as exc:  # noqa: BLE001 - a compiler may fail in any way; each becomes a Fall
        return Fall(rung, *_first_cause(exc), seconds=time.perf_counter() - started)
    return None


def _compile_targets(rung: Rung, trial: Trial) -> None:
    """Compile in place, which keeps the state dict's keys; static shapes, so an odd one never recompiles."""
    for module in trial.compile_targets:
        if rung is Rung.AOT_EAGER:
            module.compile(backend="aot_eager", dynamic=False)
        elif trial.mode == "max":
            # Not "max-autotune": its cudagraph trees break gradient accumulation (pytorch/pytorch#96693).
            module.compile(mode="max-autotune-no-cudagraphs", dynamic=False)
        else:
            module.compile(dynamic=False)


def _undo_compile(trial: Trial) -> None:
    for module in trial.compile_targets:
        module._compiled_call_impl = None  # noqa: SLF001 - torch has no public name for it
    torch._dynamo.reset()  # noqa: SLF001 - torch has no public name for it


def rehearse(step: LossStep, batch: Any, autocast: AutocastFactory) -> float:
    """Run forward and backward once, leave no trace, and return the loss."""
    with untouched_randomness(), untouched_buffers(step.model):
        try:
            with autocast():
                loss, _ = step(batch)
            loss.backward()
            return float(loss.detach())
        finally:
            step.zero_grad(set_to_none=True)


def _eager_losses(trial: Trial) -> list[float]:
    """Return the eager loss: twice, and again under other random draws if the two differ."""
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        losses = []
        with untouched_randomness(), untouched_buffers(trial.step.model):
            for _ in range(STOCHASTIC_DRAWS):
                with trial.autocast():
                    losses.append(float(trial.step(trial.batch)[0]))
                if len(losses) == 2 and losses[0] == losses[1]:
                    break
    return losses


def _check_parity(loss: float, reference: list[float], precision: str) -> None:
    """Compare with the eager loss; where dropout makes that a random number, allow its measured spread.

    Raises:
        ParityError: it gives both losses and the tolerance.
    """
    expected = statistics.fmean(reference)
    tolerance = PARITY_TOLERANCE[precision] * max(abs(expected), 1e-3)
    tolerance += STOCHASTIC_ERRORS * statistics.stdev(reference) * math.sqrt(1 + 1 / len(reference))
    if not abs(loss - expected) <= tolerance:
        raise ParityError(f"loss {loss:.6g} differs from the eager {expected:.6g} by more than {tolerance:.2g}")


def _first_cause(exc: BaseException) -> tuple[str, str]:
    """Return the class and first line of the innermost cause: that is what the user can act on."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return type(exc).__name__, lines[0][:300] if lines else ""


@contextmanager
def untouched_buffers(module: nn.Module) -> Iterator[None]:
    """Put running statistics back to where they were."""
    buffers: list[Tensor] = [buffer for buffer in module.buffers() if buffer is not None]
    before = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)


def count_recompiles() -> int:
    """Return how many graphs the compiler has made in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])  # noqa: SLF001 - torch has no public name for it
