"""One evaluation: the sums over its batches, and what follows the monitored metric.

When one is due is `loop`'s question to `owes_evaluation`. Host waits are marked SYNC, as there.
"""

import math
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from devgw_runner.batch_tree import split_batch
from devgw_runner.checkpoint.switches import resting_modules, set_training_mode
from devgw_runner.hooks import take_task_stop, wished_stop
from devgw_runner.metrics.record import Record
from devgw_runner.optimizers import step_schedule_metric
from devgw_runner.placement import give_back_gathered
from devgw_runner.randomness import untouched_randomness
from devgw_runner.remake import agree_on_switches
from devgw_runner.signals import BATCH_GRACE_SECONDS
from devgw_runner.state import RunState
from devgw_runner.step import add_means
from devgw_runner.task import LossStep, batch_samples, check_metrics
from devgw_runner.warmup import shrink_micro_batch

# Compiling the evaluation's graph too is worth it only if it runs often enough.
EVALUATION_COMPILE_BATCHES = 100


def owes_evaluation(run: RunState) -> bool:
    """Say whether the position calls for an evaluation that is not done yet, here or before a resume."""
    step, every = run.position.step, run.config.eval_every
    if run.evaluation is None or step in {0, run.state.evaluated_step}:
        return False
    return run.is_done or (step % every == 0 if every else run.position.samples == 0)


def evaluate(run: RunState) -> int:
    """Evaluate and record; return the signal that interrupted it, or 0. Training randomness is untouched.

    Raises:
        StopRequested: a stop signal came, and the next batch did not.
    """
    run.world.awaited.what = f"in the evaluation at step {run.position.step}"
    resting = resting_modules(run.state.model)
    run.state.model.eval()
    try:
        with run.signals.interruptible(grace_seconds=BATCH_GRACE_SECONDS):
            stop_signal, sums, samples = sum_over_evaluation(run)
    finally:
        set_training_mode(run.state.model, resting)
    if stop_signal:
        return stop_signal
    own = torch.stack(list(sums.values())).tolist()  # SYNC: once per evaluation
    everyones_samples, *totals = run.world.totals([samples, *own])
    means = {name: total / max(1.0, everyones_samples) for name, total in zip(sums, totals, strict=True)}
    run.state.evaluated_step = run.position.step
    conclude_evaluation(run, means)
    loss_mean = means.pop("loss", math.nan)
    run.recorder.record(Record("val", run.position.step, run.position.epoch, loss_mean, means))
    return 0


def sum_over_evaluation(run: RunState) -> tuple[int, dict[str, Tensor], int]:
    """Return the stop signal or 0, the sums of loss and metrics over the samples (on the device), and their number."""
    assert run.evaluation is not None  # noqa: S101 - narrows a type that the caller guarantees
    sums = {"loss": torch.zeros((), device=run.device)}
    samples = 0
    evaluated = evaluated_step(run)
    compiles = run.is_compiled and (run.evaluation.batches or 0) >= EVALUATION_COMPILE_BATCHES
    with torch.no_grad(), untouched_randomness(), closing(iter(run.evaluation)) as batches:
        for index, batch in enumerate(batches):
            # Eager, unless there is enough to repay a graph: then the first batch makes it.
            stance = "force_eager" if not compiles else "default" if index == 0 else "eager_on_recompile"
            with torch.compiler.set_stance(stance):
                means = evaluate_batch(run, evaluated, batch)
            weight = batch_samples(batch)
            samples += weight
            for name, value in means.items():
                weighted = value.float() * weight
                sums[name] = sums[name] + weighted if name in sums else weighted
            stop_signal = run.requests.exchange(wished_stop(run.state, run.signals.stop_signal), checkpoint=False)
            stop_signal = take_task_stop(run.state, stop_signal)
            if stop_signal:
                return stop_signal, sums, samples
    return 0, sums, samples


def evaluate_batch(run: RunState, step: LossStep, batch: Any) -> dict[str, Tensor]:
    """Return the means of loss and metrics over one batch; out of memory, in smaller parts."""
    samples = batch_samples(batch)
    while True:
        means: dict[str, Tensor] = {}
        try:
            for part in split_batch(batch, run.micro_batch, samples):
                with run.autocast():
                    loss, metrics = step(part)
                    further = run.task.metrics(step.model, part)
                    check_metrics(further, run.task, "metrics")
                    metrics = {"loss": loss, **metrics, **further}
                share = batch_samples(part) / samples
                add_means(means, {name: value.detach() for name, value in metrics.items()}, share)
        except torch.OutOfMemoryError as exc:
            shrink_micro_batch(run, samples, exc)
        else:
            return means


def evaluated_step(run: RunState) -> LossStep:
    """Return the step to evaluate with: the trained one, or the task's loss on another model of its own."""
    model = run.task.evaluation_model(run.state.model)
    return run.loss_step if model is run.state.model else LossStep(run.task, model).eval()


def conclude_evaluation(run: RunState, means: dict[str, float]) -> None:
    """Let what follows the monitored metric follow it: best checkpoints, early stopping, schedules, the task."""
    value = run.state.monitor.observe(means, run.position.step)
    step_schedule_metric(run.state.scheduler, value)
    if run.hooks.see_evaluations:
        give_back_gathered(run.state.model)  # what the hook freezes or thaws must be the shards, not copies of them
        run.hooks.evaluation_end(means)
        agree_on_switches(run)


def is_new_best(run: RunState) -> bool:
    """Say whether the evaluation at this very step is among the best to keep."""
    return run.state.evaluated_step == run.position.step and run.state.monitor.is_among_best(run.position.step)
