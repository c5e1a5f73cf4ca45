"""The training loop, top to bottom. Every place where the host waits for the device is marked SYNC.

What the parts are is `state`'s, how they were made `build`'s, what was chosen `plan`'s.
"""

import math
import signal
import time
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from devgw_runner.batch_tree import split_batch
from devgw_runner.checkpoint.state import collect_tensors
from devgw_runner.errors import SIGNAL_EXIT_BASE, NotFiniteError, StopRequested
from devgw_runner.graphs import LaunchMeter, WholeStepGraph, make_capturable
from devgw_runner.hooks import take_task_stop, wished_stop
from devgw_runner.metrics.peak import model_flops_utilisation
from devgw_runner.metrics.record import Record
from devgw_runner.optimizers import JointOptimizer, step_schedule, step_schedule_metric
from devgw_runner.own_loader import OwnLoader
from devgw_runner.parallel.wrapping import wrap_ddp
from devgw_runner.randomness import untouched_randomness
from devgw_runner.state import RunState
from devgw_runner.task import LossStep, batch_samples
from devgw_runner.usage import memory_in_use
from devgw_runner.warmup import shrink_micro_batch, warm_up
from devgw_runner.watch import HINT as NOT_FINITE_HINT
from devgw_runner.watch import gradient_size, not_finite

# Compiling the evaluation's graph too is worth it only if it runs often enough.
EVALUATION_COMPILE_BATCHES = 100
# After a stop signal a batch may take this long to come; a container has 30 s from SIGTERM to SIGKILL.
BATCH_GRACE_SECONDS = 5.0


def train(run: RunState, warm_batch: Any) -> int:
    """Train from the run's position to its end; return 0, or 128 + the signal that stopped it."""
    run.state.model.train()
    if run.is_done and not owes_evaluation(run):
        run.recorder.event("done", f"nothing to do: all {run.total_steps} steps are done")
        return 0

    # Warm-up changes no state. Alone, a stop signal ends even a compilation; several processes
    # stop together at their next step.
    try:
        with nullcontext() if run.world.is_distributed else run.signals.interruptible():
            warm_up(run, warm_batch)
    except StopRequested as stop:
        return stop_with_checkpoint(run, stop.signal_number)
    run.step = wrap_data_parallel(run) if run.plan.parallel.value == "ddp" else run.loss_step
    if run.plan.graphs.value != "off":
        run.launch_meter = LaunchMeter()
    try:
        stop_signal = train_to_end(run)
    except StopRequested as stop:
        return stop_without_batch(run, stop.signal_number)
    run.requests.close()
    if stop_signal:
        return stop_with_checkpoint(run, stop_signal)
    saved = save(run, wait=True)
    run.recorder.event("done", f"{why_finished(run)} at step {run.position.step}; {saved}")
    run.hooks.train_end()
    return 0


def wrap_data_parallel(run: RunState) -> DistributedDataParallel:
    """Exchange gradients between processes; losses in turns leave each other's parameters unused."""
    unused = run.config.find_unused_parameters or bool(run.task.turns)
    return wrap_ddp(run.loss_step, run.device, find_unused=unused)


def train_to_end(run: RunState) -> int:
    """Step until the run is done or stopped; return the stop signal, or 0.

    Raises:
        StopRequested: a stop signal came, and the batch that was waited for did not.
    """
    run.hooks.train_start()
    stop_signal = evaluate(run) if owes_evaluation(run) else 0
    last_checkpoint = time.monotonic()
    while not stop_signal and not run.is_done:
        batch = next_batch(run)
        loss, metrics = step_within_memory(run, batch)
        step_schedule(run.state.scheduler)
        run.state.position = run.order.after(run.position)
        step = run.position.step
        run.meter.add(loss, metrics, batch_samples(batch) * run.world.size)
        run.hooks.step_end(loss, metrics)
        if run.is_compiled and run.shapes.is_open:
            # From here an odd shape costs one eager step instead of minutes of recompiling.
            torch.compiler.set_stance("eager_on_recompile")
            run.shapes.is_open = False

        if run.config.nan == "stop":
            run.watch.observe(loss, step)
            if run.watch.reads_at_once or step % run.config.log_every == 0:
                run.watch.check(run.world.every)  # SYNC: on a GPU once per interval
        if step % run.config.log_every == 0 or run.is_done:
            report(run)  # SYNC: once per interval
        if trace := run.profiler.step():
            run.recorder.event("trace", f"trace of {run.config.profile} steps written to {trace}")
            if run.profiler.summary is not None:
                run.recorder.event("profile", run.profiler.summary.words())

        overdue = 0 < run.config.checkpoint_minutes * 60 <= time.monotonic() - last_checkpoint
        wanted = run.signals.take_checkpoint_request() or (overdue and run.world.is_main)
        stop_signal = run.requests.exchange(wished_stop(run.state, run.signals.stop_signal), checkpoint=wanted)
        stop_signal = take_task_stop(run.state, stop_signal)
        if not stop_signal and owes_evaluation(run):
            stop_signal = evaluate(run)
        every = run.config.checkpoint_every
        wanted = run.requests.take_checkpoint() or bool(every and step % every == 0) or is_new_best(run)
        if not stop_signal and wanted:
            save(run, wait=False)  # SYNC: copies the state to host memory; writing goes on behind
            last_checkpoint = time.monotonic()
        run.writer.poll()
    return stop_signal


def next_batch(run: RunState) -> Any:
    """Wait for the next batch; after a stop signal not for long.

    Raises:
        StopRequested: the batch did not come within the grace; no step is under way.
    """
    asked = time.perf_counter()
    with run.signals.interruptible(grace_seconds=BATCH_GRACE_SECONDS):
        batch = next(run.batches)
    run.meter.data_wait_seconds += time.perf_counter() - asked
    return batch


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
            with run.autocast():
                loss, metrics = run.step(part) if turn is None else run.step(part, turn)
            share = batch_samples(part) / samples
            loss = loss if len(parts) == 1 else loss * share
            scaler.scale(loss).backward()
        add_means(means, {"": loss.detach()}, 1.0)
        add_means(means, metrics, share)
    total = means.pop("")

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
    run.state.model.eval()
    try:
        with run.signals.interruptible(grace_seconds=BATCH_GRACE_SECONDS):
            stop_signal, sums, samples = sum_over_evaluation(run)
    finally:
        run.state.model.train()
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
                    metrics = {"loss": loss, **metrics, **run.task.metrics(step.model, part)}
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
    run.hooks.evaluation_end(means)


def is_new_best(run: RunState) -> bool:
    """Say whether the evaluation at this very step is among the best to keep."""
    return run.state.evaluated_step == run.position.step and run.state.monitor.is_among_best(run.position.step)


def why_finished(run: RunState) -> str:
    """Say why the run is over."""
    if run.state.ended:
        return f"ended by the task ({run.state.ended})"
    if run.state.monitor.is_exhausted:
        monitor = run.state.monitor
        return f"stopped early: {monitor.stale} evaluations without progress, {monitor.words()}; finished"
    return "finished"


def report(run: RunState) -> None:
    """Record the interval that ends here."""
    means, step_seconds, rate, waited = run.meter.take()  # SYNC: once per interval
    loss = run.world.total(means.pop("loss")) / run.world.size
    position, climbed = run.position, run.climb
    run.recorder.record(
        Record(
            kind="train",
            step=position.step,
            epoch=position.epoch,
            batch_in_epoch=position.samples // run.order.global_batch,
            loss=loss,
            metrics=means,
            learning_rate=float(run.state.optimizer.param_groups[0]["lr"]),
            step_seconds=step_seconds,
            samples_per_second=rate,
            data_wait_seconds=waited,
            mfu=model_flops_utilisation(rate / run.world.size, run.flops_per_sample, run.peak_flops),
            memory_bytes=memory_in_use(run.device),
            compile_seconds=climbed.seconds if climbed else 0.0,
            recompiles=run.recompiles.taken().graphs if run.recompiles and run.is_compiled else 0,
            graphs=climbed.compiled.graphs if climbed else 0,
            graph_breaks=climbed.compiled.break_count if climbed else 0,
            eager_shape_parts=run.shapes.eager_parts,
            checkpoint_age_seconds=time.monotonic() - run.writer.saved_at,
            skipped_steps=run.state.skipped_steps,
        )
    )


def save(run: RunState, *, wait: bool) -> str:
    """Save a checkpoint, unless the state is no longer finite: the older ones are better. Say which it was.

    Raises:
        NotFiniteError: it is not, and --nan stop is the policy.
    """
    if run.config.nan == "stop":
        run.watch.check(run.world.every)  # SYNC: once per checkpoint
    bad = [name for name in not_finite(collect_tensors(run.state)) if name not in run.infinite_by_design]  # SYNC
    if run.world.every(not bad):
        run.writer.save(run.state, wait=wait)
        return "checkpoint saved"
    what = bad[0] if bad else "a tensor of another process"
    text = f"{what} is not finite at step {run.position.step}"
    if run.config.nan == "stop":
        raise NotFiniteError(text, NOT_FINITE_HINT)
    run.recorder.event("not-saved", f"no checkpoint: {text}; earlier ones are intact")
    return "no checkpoint, because its state is not finite"


def stop_without_batch(run: RunState, stop_signal: int) -> int:
    """Answer a stop signal although the batch that was waited for never came."""
    if not run.world.is_distributed:
        if isinstance(run.state.loader, OwnLoader) and run.state.loader.is_stateful:
            text = "stopped while the loader was working; its own position may be off by a batch"
            run.recorder.event("not-exact", text)
        return stop_with_checkpoint(run, stop_signal)
    # The others wait in this step's exchange of gradients, and can save nothing together with us.
    name = signal.Signals(stop_signal).name
    text = f"stopped by {name} while a batch did not come; no checkpoint was saved, earlier ones are intact"
    run.recorder.event("stopped", text, signal=name)
    return SIGNAL_EXIT_BASE + stop_signal


def stop_with_checkpoint(run: RunState, stop_signal: int) -> int:
    """Save, say so, and return the exit code of a stop by signal."""
    saved = save(run, wait=True)
    name = signal.Signals(stop_signal).name
    run.recorder.event("stopped", f"stopped by {name} at step {run.position.step}; {saved}", signal=name)
    run.hooks.train_end()
    return SIGNAL_EXIT_BASE + stop_signal
