"""One optimizer step, from a batch to changed weights: in parts, replayed from a graph, skipped, or with less memory.

When steps are taken is `loop`'s. As there, every place where the host waits for the device is marked SYNC.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from devgw_runner.batch_tree import split_batch
from devgw_runner.graphs import WholeStepGraph, make_capturable
from devgw_runner.optimizers import JointOptimizer
from devgw_runner.parallel.sharded_optimizer import sharded_step
from devgw_runner.parallel.unused import naming_unused, require_all_gradients
from devgw_runner.state import RunState
from devgw_runner.task import batch_samples
from devgw_runner.warmup import shrink_micro_batch
from devgw_runner.watch import gradient_size


def step_within_memory(run: RunState, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Take one optimizer step; out of memory, halve the micro-batch and take it again."""
    while True:
        try:
            return choose_step(run, batch)
        except torch.OutOfMemoryError as exc:
            shrink_micro_batch(run, batch_samples(batch), exc)
            torch.compiler.set_stance("default")  # the new shape may compile once
            run.shapes.is_open = True


def choose_step(run: RunState, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Replay the captured graph where there is one and the batch fits it; measure first whether one pays."""
    if run.graph is not None:
        return run.graph.replay(batch) if run.graph.fits(batch) else optimizer_step(run, batch)
    if run.launch_meter is None or run.micro_batch < batch_samples(batch):
        return optimizer_step(run, batch)
    if not run.launch_meter.is_done:
        return run.launch_meter.run(lambda example: optimizer_step(run, example), batch)
    capture_if_worthwhile(run, batch)
    return choose_step(run, batch)


def optimizer_step(run: RunState, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Update the model by one batch: once, or once for each of the task's turns."""
    joint = run.state.optimizer
    if not run.task.turns or not isinstance(joint, JointOptimizer):
        return update(run, batch, joint)
    losses: list[Tensor] = []
    seen: dict[str, Tensor] = {}
    for turn in run.task.turns:
        loss, metrics = update(run, batch, joint[turn], turn)
        joint.note_member_step()
        joint.zero_grad(set_to_none=True)  # gradients that this turn's loss left with the other optimizers
        losses.append(loss)
        seen |= {f"loss_{turn}": loss, **metrics}
    return torch.stack(losses).sum(), seen


def update(
    run: RunState, batch: Any, optimizer: Optimizer, turn: str | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward, backward and update on one batch; all of it is enqueued, nothing is waited for."""
    scaler = run.state.scaler
    samples = batch_samples(batch)
    parts = split_batch(batch, run.micro_batch, samples)
    buffers = copies_of_buffers(run) if run.config.nan == "skip" else []
    means: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        with gradient_sync(run, last=index == len(parts) - 1):
            note_shape(run, part)
            with run.autocast(), naming_unused(run.step):
                loss, metrics = run.step(part) if turn is None else run.step(part, turn)
            share = batch_samples(part) / samples
            loss = loss if len(parts) == 1 else loss * share
            scaler.scale(loss).backward()
        add_means(means, {"": loss.detach()}, 1.0)
        add_means(means, metrics, share)
    total = means.pop("")
    require_all_gradients(run.step, optimizer)

    gradient: Tensor | None = None
    if run.config.grad_clip or run.config.nan == "skip" or run.hooks.see_gradients:
        scaler.unscale_(optimizer)
    if run.config.grad_clip or run.config.nan == "skip":
        gradient = clip_gradients(run, optimizer)
        # SYNC: with --nan skip every step, which is its price
        if run.config.nan == "skip" and not math.isfinite(gradient.item()):  # SYNC
            skip_step(run, buffers)
            return torch.nan_to_num(total, nan=0.0, posinf=0.0, neginf=0.0), means
    if run.config.nan == "stop" and not scaler.is_enabled():  # the scaler leaves out overflows itself
        run.watch.note_gradient(gradient_size(run.state.model.parameters()) if gradient is None else gradient)
    run.hooks.before_optimizer_step()
    with sharded_step(optimizer):
        scaler.step(optimizer)  # SYNC: with fp16 only, whose scaler asks for overflows
    scaler.update()
    optimizer.zero_grad(set_to_none=run.launch_meter is None)  # a graph needs gradients at fixed addresses
    return total, means


def note_shape(run: RunState, part: Any) -> None:
    """Count what a compiled run executes eagerly, and say each shape of that once."""
    shapes = run.shapes.note(part) if run.is_compiled else None
    if shapes is not None:
        run.recorder.event("eager-shape", f"batches of {shapes} run eager: that shape was not compiled")


def add_means(means: dict[str, Tensor], values: dict[str, Tensor], share: float) -> None:
    """Add one part's values, weighted by its share of the batch's samples."""
    for name, value in values.items():
        weighted = value if share == 1.0 else value * share
        means[name] = means[name] + weighted if name in means else weighted


def gradient_sync(run: RunState, *, last: bool) -> AbstractContextManager[Any]:
    """Exchange gradients between processes on the last micro-batch only."""
    if isinstance(run.step, DistributedDataParallel) and not last:
        return run.step.no_sync()
    if isinstance(run.state.model, FSDPModule):
        run.state.model.set_requires_gradient_sync(last)
    return nullcontext()


def clip_gradients(run: RunState, optimizer: Optimizer) -> Tensor:
    """Clip what this optimizer trains to --grad-clip and return the norm over all processes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, run.config.grad_clip or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def copies_of_buffers(run: RunState) -> list[Tensor]:
    """Return copies of what a forward pass changes beside the gradients: running statistics."""
    return [buffer.detach().clone() for buffer in run.state.model.buffers()]


def skip_step(run: RunState, buffers: list[Tensor]) -> None:
    """Leave out an update whose gradient is not finite, as --nan skip asks, and the statistics of its forward pass."""
    for buffer, before in zip(run.state.model.buffers(), buffers, strict=True):
        buffer.detach().copy_(before)
    run.state.skipped_steps += 1
    run.state.scaler.update()
    run.state.optimizer.zero_grad(set_to_none=True)
    where = f"step {run.position.step + 1} (epoch {run.position.epoch})"
    run.recorder.event("skipped", f"skipped {where}: its gradient is not finite")


def capture_if_worthwhile(run: RunState, batch: Any) -> None:
    """Capture the whole step if launching it takes the host longer than computing it takes the GPU."""
    assert run.launch_meter is not None  # noqa: S101 - narrows a type that the caller guarantees
    times = run.launch_meter.times()  # SYNC: once
    if run.plan.graphs.value == "auto" and not times.is_launch_bound:
        run.launch_meter = None
        run.recorder.event("graphs", f"graphs=off: {times.describe()}, so there is little to gain")
        return
    try:
        make_capturable(run.state.optimizer)
        run.graph = WholeStepGraph(lambda example: optimizer_step(run, example), batch)
        run.recorder.event("graphs", f"graphs=on: {times.describe()}", rung="graph")
    except RuntimeError as exc:  # what capture refuses; the step below the graph goes on
        torch.cuda.synchronize()  # SYNC: once, to leave the failed capture
        run.launch_meter = None
        line = str(exc).splitlines()[0]
        run.recorder.event("fall", f"fell from graph: {line}", rung="graph", cause=type(exc).__name__, line=line)
