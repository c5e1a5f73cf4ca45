"""Warm-up: climb the ladder on one batch, report what it took, and leave training state untouched."""

from typing import Any

import torch

from devgw_runner.batch_tree import split_batch
from devgw_runner.blocks import find_blocks
from devgw_runner.compiler_counts import CompilerCounts
from devgw_runner.errors import OutOfMemoryError
from devgw_runner.ladder import Climb, Fall, Rung, Trial, climb
from devgw_runner.metrics.progress import format_seconds
from devgw_runner.plan.written import write_plan
from devgw_runner.state import RunState
from devgw_runner.task import batch_samples

GROUP_SHARE = 0.8
"""The part of the group's patience that one rung of the ladder may use up."""


def warm_up(run: RunState, batch: object) -> None:
    """Compile what the plan asks for, as high on the ladder as it goes.

    Raises:
        StopRequested: a stop signal came while compiling; the state is as it was before.
        OutOfMemoryError: not even one sample fits.
    """
    if run.plan.compile.value == "off":
        run.climb = Climb(rung=Rung.EAGER)
        _write_outcome(run, run.climb)
        return
    run.world.awaited.what = "that compiles"
    run.recorder.event("warm-up", "compiling; the first time can take minutes, later starts use the kept cache")
    result = _climb_within_memory(run, batch)
    run.climb = result
    run.recompiles = CompilerCounts()
    for fall in result.falls:
        _say_fall(run, fall, f"fell from {fall.rung}: {fall.cause}: {fall.line}")
    made = f" with {result.compiled.describe()}" if result.rung is not Rung.EAGER else ""
    run.recorder.event(
        "warm-up-done",
        f"warm-up took {format_seconds(result.seconds)} ({_cache_words()}), running on rung {result.rung}{made}",
        seconds=result.seconds,
        **_outcome(result),
    )
    _write_outcome(run, result)


def stop_compiling(run: RunState, cause: str, line: str) -> None:
    """Go on eager from here, and say in the events and in plan.json why."""
    left = run.climb.rung if run.climb else Rung.EAGER
    fall = Fall(rung=left, cause=cause, line=line, seconds=0.0)
    run.climb = Climb(rung=Rung.EAGER, falls=[fall])
    _say_fall(run, fall, f"fell to eager: {line}")
    _write_outcome(run, run.climb)


def _say_fall(run: RunState, fall: Fall, text: str) -> None:
    run.recorder.event("fall", text, rung=fall.rung, cause=fall.cause, line=fall.line, seconds=fall.seconds)


def _outcome(result: Climb) -> dict[str, Any]:
    return {
        "rung": result.rung,
        "graphs": result.compiled.graphs,
        "graph_breaks": result.compiled.break_count,
        "graph_break_reasons": [{"reason": reason, "count": count} for reason, count in result.compiled.breaks],
    }


def _write_outcome(run: RunState, result: Climb) -> None:
    """Say in plan.json what became of the choice to compile."""
    if run.world.is_main:
        falls = [{"rung": fall.rung, "cause": fall.cause, "line": fall.line} for fall in result.falls]
        write_plan(run.plan, run.paths, warm_up={**_outcome(result), "seconds": result.seconds, "falls": falls})


def _climb_within_memory(run: RunState, batch: object) -> Climb:
    while True:
        samples = batch_samples(batch)
        first_part = split_batch(batch, run.micro_batch, samples)[0]
        trial = Trial(
            step=run.loss_step,
            batch=first_part,
            precision=run.plan.precision.value,
            autocast=run.autocast,
            mode=run.plan.compile.value,
            timeout_seconds=_patience(run),
            compile_targets=compile_targets(run),
        )
        try:
            return climb(trial, run.world.every)
        except torch.OutOfMemoryError as exc:
            shrink_micro_batch(run, samples, exc)


def _patience(run: RunState) -> float:
    """Several processes wait for the one that compiles longest."""
    alone = run.config.compile_timeout_seconds
    return min(alone, GROUP_SHARE * run.world.timeout_seconds) if run.world.is_distributed else alone


def compile_targets(run: RunState) -> tuple[torch.nn.Module, ...]:
    """Under FSDP2 each block compiles alone, so that gathering the next overlaps; else the whole step."""
    if run.plan.parallel.value == "fsdp":
        return tuple(find_blocks(run.state.model)) or (run.loss_step,)
    return (run.loss_step,)


def shrink_micro_batch(run: RunState, samples: int, exc: torch.OutOfMemoryError) -> None:
    """Halve the micro-batch after an out-of-memory error in a batch of so many samples.

    Raises:
        OutOfMemoryError: the policy is to stop, one sample is too many, or processes would have to agree.
    """
    size = min(run.micro_batch, samples)
    if run.config.oom == "stop" or size == 1 or run.world.is_distributed:
        raise OutOfMemoryError(
            f"out of device memory with {size} samples at once at step {run.position.step + 1}",
            f"--micro-batch {max(1, size // 2)} accumulates gradients over smaller parts",
        ) from exc
    run.loss_step.zero_grad(set_to_none=True)
    if run.device.type == "cuda":
        torch.cuda.empty_cache()
    run.micro_batch = -(-size // 2)
    run.writer.note_numerics(micro_batch=run.micro_batch)
    run.recorder.event(
        "oom",
        f"out of device memory with {size} samples at once; going on with micro-batches of {run.micro_batch}",
        micro_batch=run.micro_batch,
    )


def _cache_words() -> str:
    counters = torch._dynamo.utils.counters["inductor"]  # noqa: SLF001 - torch has no public name for it
    hits, misses = counters["fxgraph_cache_hit"], counters["fxgraph_cache_miss"]
    if not hits and not misses:
        return "nothing cacheable"
    return "compile cache warm" if hits and not misses else f"compile cache: {hits} hits, {misses} misses"
