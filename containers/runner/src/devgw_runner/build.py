"""Carry out the plan: put one run together. The composition root of the runner.

Each function makes one layer; `assemble` calls them in the order in which they depend on each other.
"""

from contextlib import suppress
from typing import Any

import torch

from devgw_runner import measure
from devgw_runner.activation_checkpointing import recompute_blocks
from devgw_runner.batch_tree import split_batch
from devgw_runner.batches import MEMORY_FORMATS, make_order, open_batches, open_evaluation
from devgw_runner.checkpoint.hyperparameters import describe, foretell
from devgw_runner.checkpoint.resume import Start, restore
from devgw_runner.checkpoint.staging import pinned_stager
from devgw_runner.checkpoint.state import TrainState, collect_tensors, collect_trainer
from devgw_runner.checkpoint.writer import CheckpointWriter, WriterSettings
from devgw_runner.errors import RunnerError
from devgw_runner.graphs import settle_settings
from devgw_runner.hooks import Hooks
from devgw_runner.metrics.loggers import shown_settings
from devgw_runner.metrics.peak import peak_flops
from devgw_runner.metrics.progress import Progress
from devgw_runner.metrics.record import Meter
from devgw_runner.metrics.recorder import Recorder
from devgw_runner.monitor import make_monitor
from devgw_runner.optimizers import follows_metric, make_optimizer, make_schedule
from devgw_runner.parallel.sharded_optimizer import rehearse
from devgw_runner.parallel.world import StopConsensus, World
from devgw_runner.plan.choice import Plan
from devgw_runner.plan.throughput import count_steps
from devgw_runner.plan.written import write_plan
from devgw_runner.precision import autocast_for, convert_to_fp8, scaler_for, set_matmul_precision
from devgw_runner.probe import Prepared
from devgw_runner.profiling import Profiler
from devgw_runner.randomness import untouched_randomness
from devgw_runner.sampler import Position
from devgw_runner.signals import Signals
from devgw_runner.state import UNSPLIT, RunState, StreamOrder
from devgw_runner.switch_watch import SwitchWatch
from devgw_runner.task import LossStep, batch_samples
from devgw_runner.watch import FiniteWatch, not_finite


def assemble(prepared: Prepared, signals: Signals) -> tuple[RunState, Any]:
    """Carry out the plan; return the run, and the batch to warm up with.

    Raises:
        ShardingError: a parameter cannot be sharded.
        CheckpointError, StorageError: the checkpoint or the volumes cannot be used.
    """
    set_matmul_precision(prepared.plan.precision.value, deterministic=prepared.config.deterministic)
    _lay_out(prepared)
    run = _make_run(prepared, signals)
    try:
        _resume(run, prepared.start, prepared.launchers)
        for text in foretell(run.state.scheduler, run.total_steps):
            run.recorder.event("schedule", text)
        collect_trainer(run.state)  # what cannot be saved is told now, not after hours
        _check_monitor(run)
        warm_batch = open_batches(run, prepared)
        if run.peak_flops:
            run.flops_per_sample = prepared.task.flops_per_sample(warm_batch) or _count_flops(run, prepared, warm_batch)
    except BaseException:
        with suppress(RunnerError):  # what went wrong first is what the user must know
            run.close()
        raise
    return run, warm_batch


def _make_run(prepared: Prepared, signals: Signals) -> RunState:
    config, plan, world, device = prepared.config, prepared.plan, prepared.world, prepared.device
    order = make_order(prepared)
    position = order.resumed(prepared.start.position)
    total_steps = count_steps(config, order.batches_per_epoch)
    if config.steps is None:
        total_steps = order.last_step(position, config.epochs)
    evaluation = open_evaluation(prepared)
    state = _make_state(prepared, total_steps, has_evaluation=evaluation is not None)
    hooks = Hooks(prepared.task, config, state, world, device, total_steps)
    hooks.setup()
    infinite_by_design = frozenset(not_finite(collect_tensors(state)))
    recorder = _open_recorder(prepared, signals, total_steps)
    step = LossStep(prepared.task, prepared.model)
    return RunState(
        task=prepared.task,
        config=config,
        plan=plan,
        paths=prepared.paths,
        world=world,
        device=device,
        state=state,
        hooks=hooks,
        loss_step=step,
        step=step,
        autocast=autocast_for(plan.precision.value, device, sharded=plan.parallel.value == "fsdp"),
        order=order,
        total_steps=total_steps,
        evaluation=evaluation,
        signals=signals,
        requests=StopConsensus(world),
        writer=_open_writer(prepared),
        recorder=recorder,
        meter=Meter(device),
        watch=FiniteWatch(device, order.batches_per_epoch, is_alone=not world.is_distributed),
        profiler=Profiler(config.profile if world.is_main else 0, prepared.paths.logs, device),
        switches=SwitchWatch(state.model, state.optimizer),
        infinite_by_design=infinite_by_design,
        micro_batch=plan.micro_batch.value if plan.micro_batch.value < plan.batch_size.value else UNSPLIT,
        peak_flops=peak_flops(prepared.facts.device, plan.precision.value, config.peak_tflops),
    )


def _open_recorder(prepared: Prepared, signals: Signals, total_steps: int) -> Recorder:
    config, is_main = prepared.config, prepared.world.is_main
    progress = Progress(total_steps, config.progress_seconds, lambda: signals.request_stop(1))  # 1: SIGHUP
    recorder = Recorder(config, prepared.paths.logs, progress, prepared.paths.run, is_main=is_main)
    if is_main:
        write_plan(prepared.plan, prepared.paths)
        recorder.add_loggers(prepared.task.loggers(config))
    return recorder


def _count_flops(run: RunState, prepared: Prepared, warm_batch: Any) -> float:
    """Count on no more samples than the first look had, which fitted."""
    most = min(run.micro_batch, prepared.facts.fitting_samples or batch_samples(prepared.first_look))
    part = split_batch(warm_batch, most, batch_samples(warm_batch))[0]
    return measure.count_flops_per_sample(run.loss_step, part, run.autocast)


def _lay_out(prepared: Prepared) -> None:
    """Convert and lay out a whole model in place; a sharded one was converted before it was sharded."""
    model, plan, task = prepared.model, prepared.plan, prepared.task
    if plan.parallel.value == "fsdp":
        return
    if prepared.config.activation_checkpointing == "blocks":
        recompute_blocks(task.blocks(model), type(task).__name__)
    if plan.precision.value == "fp8":
        convert_to_fp8(model)
    model.to(memory_format=MEMORY_FORMATS[plan.memory_format.value])  # type: ignore[call-overload]  # torch's stub lacks the keyword-only form


def _make_state(prepared: Prepared, total_steps: int, *, has_evaluation: bool) -> TrainState:
    task, config = prepared.task, prepared.config
    optimizer = make_optimizer(task, prepared.model, config)
    rehearse(optimizer)
    scheduler = make_schedule(task, optimizer, config, total_steps)
    needs_evaluation = "ReduceLROnPlateau" if follows_metric(scheduler) else ""
    state = TrainState(
        model=prepared.model,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler_for(prepared.plan.precision.value, prepared.device),
        loader=prepared.data,
        position=Position(),
        task=task,
        rank=prepared.world.rank,
        monitor=make_monitor(config, has_evaluation=has_evaluation, needs_evaluation=needs_evaluation),
    )
    settings = shown_settings(config.model_dump(mode="json")) | {
        "precision": prepared.plan.precision.value,
        "compile": prepared.plan.compile.value,
    }
    state.built = describe(state.model, state.optimizer, state.scheduler, settings, total_steps)
    return state


def _open_writer(prepared: Prepared) -> CheckpointWriter:
    config = prepared.config
    settings = WriterSettings(
        root=prepared.paths.checkpoints,
        keep=config.checkpoint_keep,
        numerics=prepared.plan.numerics(),
        asynchronous=config.checkpoint_async,
        stager=pinned_stager(prepared.device),
        branch=prepared.start.branch,
        made={"device": prepared.device.type, "parallel": how_parallel(prepared.plan, prepared.world)},
        keep_best=config.checkpoint_best,
    )
    return CheckpointWriter(settings, prepared.world)


def how_parallel(plan: Plan, world: World) -> str:
    """Say how a checkpoint's tensors are divided: another way of it is another layout."""
    return plan.parallel.value if world.tensor == 1 else f"{plan.parallel.value} x tensor {world.tensor}"


def _go_on(run: RunState) -> None:
    """Go on at the same sample, and say so if batches hold another number of samples now."""
    there = run.position
    size = run.order.batch if isinstance(run.order, StreamOrder) else run.order.global_batch
    run.state.position = run.order.resumed(there)
    if there.batch and there.batch != size:
        left = max(0, run.total_steps - there.step)
        text = f"a step takes {size} samples, {there.batch} before; epochs are counted in samples"
        run.recorder.event("not-exact", f"{text}: {left} steps are left, not bit-exact")


def _check_monitor(run: RunState) -> None:
    """Compute one evaluation batch now, so that a metric that does not exist is told before hours of training.

    Raises:
        TaskError: the evaluation has no such metric.
    """
    first = next(iter(run.evaluation), None) if run.evaluation and run.config.monitor != "loss" else None
    if first is None:
        return
    model = run.task.evaluation_model(run.state.model)
    was_training = model.training
    model.eval()
    with torch.no_grad(), untouched_randomness(), run.autocast():
        _, metrics = LossStep(run.task, model)(first)
        run.state.monitor.require({"loss": 0.0, **metrics, **run.task.metrics(model, first)})
    model.train(was_training)


def _resume(run: RunState, start: Start, launchers: tuple[str, ...]) -> None:
    found = start.found
    if start.note:
        run.recorder.event("branch", start.note, branch=start.branch.name)
    if found is None:
        run.writer.begin_branch(launchers)
        return
    for complaint in found.passed_over:
        run.recorder.event("passed-over", f"{complaint}; using {found.path.name}")
    made = {
        "device": run.device.type,
        "parallel": how_parallel(run.plan, run.world),
        "memory_format": run.plan.memory_format.value,
    }
    run.world.awaited.what = f"that reads {found.path.name}"
    restored = restore(run.state, found, run.world, made)
    run.recorder.event("resumed", f"resumed from {found.path.name}")
    settle_settings(run.state.optimizer)
    _go_on(run)
    for reason in restored.not_exact:
        run.recorder.event("not-exact", reason)
    for change in restored.changed:
        run.recorder.event("changed", f"changed since the checkpoint: {change}")
    run.writer.begin_branch(launchers)
