"""The training loop, top to bottom. Every place where the host waits for the device is marked SYNC.

One optimizer step is `step`'s, one evaluation `evaluation`'s; how the parts were made is `build`'s.
"""

import signal
import time
from contextlib import nullcontext
from typing import Any

import torch

from devgw_runner.checkpoint.state import collect_tensors
from devgw_runner.checkpoint.switches import set_training_mode
from devgw_runner.errors import SIGNAL_EXIT_BASE, NotFiniteError, StopRequested
from devgw_runner.evaluation import evaluate, is_new_best, owes_evaluation
from devgw_runner.graphs import LaunchMeter
from devgw_runner.hooks import take_task_stop, wished_stop
from devgw_runner.metrics.peak import model_flops_utilisation
from devgw_runner.metrics.record import Record
from devgw_runner.optimizers import step_schedule
from devgw_runner.own_loader import OwnLoader
from devgw_runner.remake import agree_on_switches, begin_switches, follow_switches, wrap_data_parallel
from devgw_runner.signals import BATCH_GRACE_SECONDS
from devgw_runner.state import RunState
from devgw_runner.step import step_within_memory
from devgw_runner.task import batch_samples
from devgw_runner.usage import memory_in_use
from devgw_runner.warmup import warm_up
from devgw_runner.watch import HINT as NOT_FINITE_HINT
from devgw_runner.watch import not_finite


def train(run: RunState, warm_batch: Any) -> int:
    """Train from the run's position to its end; return 0, or 128 + the signal that stopped it."""
    set_training_mode(run.state.model, run.state.resting)
    if run.is_done and not owes_evaluation(run):
        run.recorder.event("done", f"nothing to do: all {run.total_steps} steps are done")
        return 0

    begin_switches(run)
    # Warm-up changes no state. Alone, a stop signal ends even a compilation; several processes
    # stop together at their next step.
    try:
        with nullcontext() if run.world.is_distributed else run.signals.interruptible():
            warm_up(run, warm_batch)
    except StopRequested as stop:
        return stop_with_checkpoint(run, stop.signal_number)
    run.step = wrap_data_parallel(run, warm_batch) if run.plan.parallel.value == "ddp" else run.loss_step
    if run.plan.graphs.value != "off":
        run.launch_meter = LaunchMeter()
    try:
        stop_signal = train_to_end(run, warm_batch)
    except StopRequested as stop:
        return stop_without_batch(run, stop.signal_number)
    run.requests.close()
    if stop_signal:
        return stop_with_checkpoint(run, stop_signal)
    saved = save(run, wait=True)
    run.recorder.event("done", f"{why_finished(run)} at step {run.position.step}; {saved}")
    run.hooks.train_end()
    return 0


def train_to_end(run: RunState, batch: Any) -> int:
    """Step until the run is done or stopped; return the stop signal, or 0. `batch` is one to compile with.

    Raises:
        StopRequested: a stop signal came, and the batch that was waited for did not.
    """
    run.hooks.train_start()
    agree_on_switches(run)
    stop_signal = evaluate(run) if owes_evaluation(run) else 0
    last_checkpoint = time.monotonic()
    while not stop_signal and not run.is_done:
        stop_signal = follow_switches(run, batch)
        if stop_signal:
            break
        run.world.awaited.what = f"in step {run.position.step + 1}"
        batch = next_batch(run)
        loss, metrics = step_within_memory(run, batch)
        step_schedule(run.state.scheduler)
        run.state.position = run.order.after(run.position)
        step = run.position.step
        run.meter.add(loss, metrics, batch_samples(batch) * run.world.data_size)
        run.hooks.step_end(loss, metrics)
        end_compiling(run)

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
        wish = wished_stop(run.state, run.signals.stop_signal)
        stop_signal = run.requests.exchange(wish, checkpoint=wanted, switches=run.switches)
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


def end_compiling(run: RunState) -> None:
    """From here an odd shape costs one eager step instead of minutes of recompiling."""
    if run.is_compiled and run.shapes.is_open:
        torch.compiler.set_stance("eager_on_recompile")
        run.shapes.is_open = False


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
    run.world.awaited.what = f"at the checkpoint of step {run.position.step}"
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
