"""The ladder: compiled, then aot_eager, then eager; each fall is recorded with its cause.

The rung above, the whole-step CUDA graph, is `graphs`' and stands on whichever rung holds here.
A trial leaves no trace: gradients, buffers and random state are put back.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from devgw_runner.compiler_counts import Compiled, CompilerCounts
from devgw_runner.parallel.world import failed_by_another
from devgw_runner.parity import STOCHASTIC_DRAWS, Draw, Reference, check_parity, take_reference
from devgw_runner.precision import AutocastFactory
from devgw_runner.randomness import untouched_randomness
from devgw_runner.task import LossStep
from devgw_runner.time_limit import CompileTimeoutError, time_limit


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
    compiled: Compiled = field(default_factory=Compiled)


class NoGraphError(Exception):
    """The compiler raised nothing and compiled nothing: everything would run eager under another name."""


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
    """Find the highest rung that compiles in time and computes the eager loss and gradients; leave it compiled.

    `agree` says whether every process succeeded. A stop signal (StopRequested) passes through.
    """
    started = time.perf_counter()
    result = Climb(rung=Rung.EAGER)
    reference = _eager_reference(trial)
    result.eager_loss = statistics.fmean(reference.losses)
    for rung in COMPILE_RUNGS:
        counts = CompilerCounts()
        fall = _try_rung(rung, trial, reference, counts)
        if agree(fall is None):
            result.rung, result.compiled = rung, counts.taken()
            break
        result.falls.append(fall or Fall(rung, "OtherProcess", "another process fell", 0.0))
        undo_compile(trial.compile_targets)
    result.seconds = time.perf_counter() - started
    return result


def _try_rung(rung: Rung, trial: Trial, reference: Reference, counts: CompilerCounts) -> Fall | None:
    started = time.perf_counter()
    try:
        _compile_targets(rung, trial)
        with time_limit(trial.timeout_seconds), untouched_randomness():
            first = draw(trial, trial.autocast)
            _require_graphs(counts.taken())
            draws = chain([first], (draw(trial, trial.autocast) for _ in count()))
            check_parity(lambda: next(draws), reference, trial.precision)
    except torch.OutOfMemoryError:
        raise  # a smaller batch is the remedy, not a lower rung
    except (Exception, CompileTimeoutError) as exc:  # a compiler may fail in any way; each becomes a Fall
        if failed_by_another(exc):
            raise
        return Fall(rung, *_first_cause(exc), seconds=time.perf_counter() - started)
    return None


def _require_graphs(compiled: Compiled) -> None:
    if compiled.graphs == 0:
        reasons = "; ".join(reason for reason, _ in compiled.breaks)
        raise NoGraphError(f"nothing was compiled: {reasons or 'the compiler skipped the whole step'}")


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


def undo_compile(targets: tuple[nn.Module, ...]) -> None:
    """Let these modules run eager again, and forget what was compiled."""
    for module in targets:
        module._compiled_call_impl = None  # noqa: SLF001 - torch has no public name for it
    torch._dynamo.reset()  # noqa: SLF001 - torch has no public name for it


def rehearse(step: LossStep, batch: Any, autocast: AutocastFactory, through: nn.Module | None = None) -> float:
    """Run forward and backward once, through a wrapper of the step if one is given, leave no trace; return the loss."""
    with untouched_randomness(), _untraced(step):
        return _forward_backward(step if through is None else through, batch, autocast)


def draw(trial: Trial, autocast: AutocastFactory) -> Draw:
    """Run forward and backward once on the trial's batch; only the random state moves on."""
    step = trial.step
    with _untraced(step):
        loss = _forward_backward(step, trial.batch, autocast)
        gradients = {name: _kept(parameter) for name, parameter in step.named_parameters() if parameter.requires_grad}
    return Draw(loss, gradients)


def _forward_backward(step: nn.Module, batch: Any, autocast: AutocastFactory) -> float:
    with autocast():
        loss, _ = step(batch)
    loss.backward()
    return float(loss.detach())


@contextmanager
def _untraced(step: LossStep) -> Iterator[None]:
    """Leave neither gradients nor running statistics behind."""
    with untouched_buffers(step.model):
        try:
            yield
        finally:
            step.zero_grad(set_to_none=True)


def _kept(parameter: nn.Parameter) -> Tensor:
    """Return the gradient of this process's shard, in fp32 and in host memory, where there is room for copies."""
    gradient = parameter.grad
    if gradient is None:
        gradient = torch.zeros_like(parameter)
    whole = gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()
    return (whole.to_local() if isinstance(whole, DTensor) else whole).float().cpu()


def _eager_reference(trial: Trial) -> Reference:
    """Take the eager loss twice, and again under other random draws if the two differ; then the gradients."""
    with torch.compiler.set_stance("force_eager"), untouched_randomness():
        losses = []
        with torch.no_grad(), untouched_buffers(trial.step.model):
            for _ in range(STOCHASTIC_DRAWS):
                with trial.autocast():
                    losses.append(float(trial.step(trial.batch)[0]))
                if len(losses) == 2 and losses[0] == losses[1]:
                    break
        return take_reference(
            losses, lambda: draw(trial, trial.autocast), lambda: draw(trial, nullcontext), trial.precision
        )


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
