"""Put one run together from a task and its settings: the composition root of the runner.

Each function makes one layer; `assemble` calls them in the order in which they depend on each other.
"""

import inspect
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from devgw_runner import loading, measure
from devgw_runner.checkpoint.resume import Found, find_checkpoint, restore
from devgw_runner.checkpoint.state import TrainState, check_same_model
from devgw_runner.checkpoint.writer import CheckpointWriter, WriterSettings
from devgw_runner.config import TrainConfig
from devgw_runner.errors import DataError, TaskError, storage_error
from devgw_runner.metrics.peak import peak_flops
from devgw_runner.metrics.progress import Progress
from devgw_runner.metrics.record import Meter
from devgw_runner.metrics.recorder import Recorder
from devgw_runner.parallel.world import AgreedRequests, World
from devgw_runner.parallel.wrapping import shard_model
from devgw_runner.places import Places
from devgw_runner.plan.build import build_plan, pin_choices
from devgw_runner.plan.choice import Plan
from devgw_runner.plan.facts import DataFacts, Facts
from devgw_runner.plan.throughput import count_steps
from devgw_runner.precision import autocast_for, convert_to_fp8, scaler_for, set_matmul_precision
from devgw_runner.profiling import Profiler
from devgw_runner.randomness import make_deterministic, seed_everything
from devgw_runner.resources import read_resources
from devgw_runner.sampler import Position, SampleOrder
from devgw_runner.signals import Signals
from devgw_runner.task import LossStep, Task, batch_samples, check_batch
from devgw_runner.training import Evaluation, Order, StreamOrder, Training
from devgw_runner.watch import LossWatch

FIRST_LOOK_SAMPLES = 16  # enough to time a sample without a whole batch, whose size is not decided yet
FIRST_LOOK_REPEATS = 3
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Prepared:
    """A run up to its plan: everything that `--explain` needs."""

    task: Task[Any]
    config: TrainConfig
    places: Places
    world: World
    device: torch.device
    model: nn.Module
    data: Any
    first_look: Any
    facts: Facts
    plan: Plan
    found: Found | None
    has_own_optimizer: bool


def prepare(
    task: Task[Any], config: TrainConfig, places: Places, world: World, device: torch.device
) -> Prepared:
    """Build model and data, look at one small batch, find the facts, and decide.

    Raises:
        TaskError, DataError, CheckpointError, OtherModelError, PrecisionError, UsageError: what stands in the way.
    """
    found = world.from_main(find_checkpoint(config.resume, places.checkpoints))
    config = pin_choices(config, found.manifest.numerics) if found else config
    seed_everything(config.seed)
    if config.deterministic:
        make_deterministic()
    model = _build_model(task, config)
    if found is not None:
        check_same_model(found.manifest.model, model)
    data = task.data(config, "train")
    first_look, load_seconds = _look_at_data(task, data, config)
    model.to(device)
    facts = _find_facts(task, config, world, device, model, data, first_look, load_seconds)
    plan = build_plan(config, facts, found.note() if found else "")
    own = facts.has_own_optimizer
    return Prepared(task, config, places, world, device, model, data, first_look, facts, plan, found, own)


def assemble(prepared: Prepared, signals: Signals) -> tuple[Training, Any]:
    """Carry out the plan; return the run, and the batch to warm up with.

    Raises:
        ShardingError: a parameter cannot be sharded.
        CheckpointError, StorageError: the checkpoint or the volumes cannot be used.
    """
    config, plan, world, device = prepared.config, prepared.plan, prepared.world, prepared.device
    set_matmul_precision(plan.precision.value, deterministic=config.deterministic)
    _lay_out(prepared)
    order = _make_order(prepared)
    total_steps = count_steps(config, order.batches_per_epoch)
    state = _make_state(prepared, total_steps)
    progress = Progress(total_steps, config.progress_seconds, lambda: signals.request_stop(1))  # 1: SIGHUP
    recorder = Recorder(config, prepared.places.logs, progress, prepared.places.run, is_main=world.is_main)
    _write_plan(prepared)
    step = LossStep(prepared.task, prepared.model)
    run = Training(
        task=prepared.task,
        config=config,
        plan=plan,
        places=prepared.places,
        world=world,
        device=device,
        state=state,
        loss_step=step,
        step=step,
        autocast=autocast_for(plan.precision.value, device, sharded=plan.parallel.value == "fsdp"),
        order=order,
        total_steps=total_steps,
        evaluation=_open_evaluation(prepared),
        signals=signals,
        requests=AgreedRequests(world),
        writer=_open_writer(prepared),
        recorder=recorder,
        meter=Meter(device),
        watch=LossWatch(device, order.batches_per_epoch),
        profiler=Profiler(config.profile if world.is_main else 0, prepared.places.logs, device),
        micro_batch=plan.micro_batch.value,
        peak_flops=peak_flops(prepared.facts.device, plan.precision.value, config.peak_tflops),
    )
    _resume(run, prepared.found)
    warm_batch = _open_batches(run, prepared)
    if run.peak_flops:
        run.flops_per_sample = prepared.task.flops_per_sample(warm_batch) or measure.count_flops_per_sample(
            run.loss_step, warm_batch, run.autocast
        )
    return run, warm_batch


def _build_model(task: Task[Any], config: TrainConfig) -> nn.Module:
    model = task.model(config)
    if not isinstance(model, nn.Module):
        kind = type(task).__name__
        raise TaskError(f"{kind}.model returned a {type(model).__name__}", "return a torch.nn.Module")
    return model


def _look_at_data(task: Task[Any], data: Any, config: TrainConfig) -> tuple[Any, float]:
    """Return a first small batch on the host and the seconds one sample took to load."""
    if data is None:
        raise DataError("the task has no train data", f"let {type(task).__name__}.data return it for 'train'")
    if not loading.is_map_style(data):
        if not hasattr(data, "__iter__"):
            raise DataError(
                f"the train data is a {type(data).__name__}", "return a data set or an iterable of batches"
            )
        first = next(iter(data), None)
        if first is None:
            raise DataError("the train data yielded no batch", "check the loader that Task.data returns")
        check_batch(first)
        return first, 0.0
    length = loading.dataset_length(data, "train")
    order = SampleOrder(length, min(FIRST_LOOK_SAMPLES, length), config.seed, last_batch="pad")
    loading.load_first_batch(
        data, order
    )  # the first access opens files and imports; those after are the usual ones
    seconds = []
    for _ in range(FIRST_LOOK_REPEATS):
        started = time.perf_counter()
        first = loading.load_first_batch(data, order)
        seconds.append(time.perf_counter() - started)
    check_batch(first)
    return first, min(seconds) / order.batch_size


def _find_facts(
    task: Task[Any],
    config: TrainConfig,
    world: World,
    device: torch.device,
    model: nn.Module,
    data: Any,
    first_look: Any,
    load_seconds: float,
) -> Facts:
    length = len(data) if loading.is_map_style(data) else None
    samples = batch_samples(first_look)
    step = LossStep(task, model)
    batch = loading.move_batch(first_look, device, torch.contiguous_format)
    autocast = autocast_for("fp32", device, sharded=False)
    measure.check_first_loss(step, batch, task)
    facts = Facts(
        device=measure.device_facts(device),
        model=measure.model_facts(model),
        data=DataFacts(length, measure.batch_bytes(first_look) // samples, load_seconds),
        resources=read_resources(),
        world=world.size,
        local_world=world.local_size,
        has_compiler=measure.has_cpp_compiler(),
        has_own_optimizer=type(task).optimizer is not Task.optimizer,
        has_torchao=measure.has_torchao(),
        planned_samples=config.epochs * (length or 0),
    )
    if config.batch_size == "auto" or config.micro_batch == "auto":
        facts = replace(facts, bytes_per_sample=measure.measure_bytes_per_sample(step, batch, autocast))
    if config.compile == "auto" and device.type == "cpu" and not config.deterministic:
        facts = replace(facts, eager_seconds_per_sample=measure.time_step(step, batch, autocast) / samples)
    return facts


def _lay_out(prepared: Prepared) -> None:
    """Convert, lay out and shard the model in place."""
    model, plan = prepared.model, prepared.plan
    if plan.precision.value == "fp8":
        convert_to_fp8(model)
    if plan.parallel.value == "fsdp":
        shard_model(model, plan.precision.value, cpu_offload=prepared.config.cpu_offload)
    else:
        model.to(memory_format=MEMORY_FORMATS[plan.memory_format.value])  # type: ignore[call-overload]  # torch's stub lacks the keyword-only form


def _make_order(prepared: Prepared) -> Order:
    config, plan, data = prepared.config, prepared.plan, prepared.data
    if prepared.facts.data.length is None:
        return StreamOrder(len(data) if hasattr(data, "__len__") else None)
    order = SampleOrder(
        length=prepared.facts.data.length,
        batch_size=plan.batch_size.value,
        seed=config.seed,
        rank=prepared.world.rank,
        world=prepared.world.size,
        last_batch=config.last_batch,
    )
    loading.check_order(order)
    return order


def _make_state(prepared: Prepared, total_steps: int) -> TrainState:
    task, config = prepared.task, prepared.config
    optimizer = _make_optimizer(prepared)
    return TrainState(
        model=prepared.model,
        optimizer=optimizer,
        scheduler=task.schedule(optimizer, config, total_steps),
        scaler=scaler_for(prepared.plan.precision.value, prepared.device),
        loader=prepared.data,
        position=Position(),
    )


def _make_optimizer(prepared: Prepared) -> Optimizer:
    task, config = prepared.task, prepared.config
    trainable = [p for p in prepared.model.parameters() if p.requires_grad]
    own = task.optimizer(iter(trainable), config)
    if own is not None and not isinstance(own, Optimizer):
        kind = type(task).__name__
        raise TaskError(f"{kind}.optimizer returned a {type(own).__name__}", "return a torch.optim.Optimizer")
    return own or AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _open_writer(prepared: Prepared) -> CheckpointWriter:
    config = prepared.config
    settings = WriterSettings(
        root=prepared.places.checkpoints,
        keep=config.checkpoint_keep,
        numerics=prepared.plan.numerics(),
        asynchronous=config.checkpoint_async,
    )
    return CheckpointWriter(settings, prepared.world)


def _write_plan(prepared: Prepared) -> None:
    if not prepared.world.is_main:
        return
    text = json.dumps(prepared.plan.to_json() | {"run": prepared.places.run}, indent=1)
    try:
        (prepared.places.logs / "plan.json").write_text(text + "\n", encoding="utf-8")
    except OSError as exc:
        raise storage_error(exc, "writing plan.json") from exc


def _resume(run: Training, found: Found | None) -> None:
    if found is None:
        return
    for complaint in found.passed_over:
        run.recorder.event("passed-over", f"{complaint}; using {found.path.name}")
    warning = restore(run.state, found, run.world)
    run.recorder.event("resumed", f"resumed from {found.path.name}")
    if warning:
        run.recorder.event("not-exact", warning)


def _open_batches(run: Training, prepared: Prepared) -> Any:
    """Open the training batches at the run's position; return one more batch of the same shape for warm-up."""
    plan, device = run.plan, run.device
    memory_format = MEMORY_FORMATS[plan.memory_format.value]
    host: Iterator[Any]
    if isinstance(run.order, SampleOrder):
        host = loading.open_dataset(
            prepared.data, run.order, run.position, workers=plan.workers.value, pin=device.type == "cuda"
        )
        first = loading.load_first_batch(prepared.data, run.order)
    else:
        host = loading.repeat_loader(prepared.data, run.position, run.order.batches_per_epoch)
        first = prepared.first_look
    run.batches = loading.DevicePrefetch(host, device, memory_format, ahead=plan.prefetch.value != "off")
    return loading.move_batch(first, device, memory_format)


class _DatasetEvaluation:
    """Goes through a validation data set in order, each process its share; the last batch may be short."""

    def __init__(self, data: Any, prepared: Prepared) -> None:
        self._data = data
        self._plan = prepared.plan
        self._device = prepared.device
        self._order = SampleOrder(
            length=loading.dataset_length(data, "val"),
            batch_size=min(prepared.plan.micro_batch.value, max(1, len(data) // prepared.world.size)),
            seed=prepared.config.seed,
            rank=prepared.world.rank,
            world=prepared.world.size,
            shuffle=False,
            last_batch="eager",
        )
        self.batches: int | None = self._order.batches_per_epoch

    def __iter__(self) -> Iterator[Any]:
        host = loading.open_dataset(
            self._data,
            self._order,
            Position(),
            workers=self._plan.workers.value,
            pin=self._device.type == "cuda",
        )
        for _ in range(self._order.batches_per_epoch):
            yield loading.move_batch(next(host), self._device, MEMORY_FORMATS[self._plan.memory_format.value])


class _LoaderEvaluation:
    """Goes through the task's own validation loader."""

    def __init__(self, data: Any, prepared: Prepared) -> None:
        self._data = data
        self._device = prepared.device
        self._format = MEMORY_FORMATS[prepared.plan.memory_format.value]
        self.batches: int | None = len(data) if hasattr(data, "__len__") else None

    def __iter__(self) -> Iterator[Any]:
        for batch in self._data:
            yield loading.move_batch(batch, self._device, self._format)


def _open_evaluation(prepared: Prepared) -> Evaluation | None:
    data = prepared.task.data(prepared.config, "val")
    if data is None:
        return None
    return (
        _DatasetEvaluation(data, prepared)
        if loading.is_map_style(data)
        else _LoaderEvaluation(data, prepared)
    )


def script_name(task: Task[Any]) -> str:
    """Return the default run name: the script's file name, or the task's class name in a notebook."""
    try:
        path = inspect.getfile(type(task))
    except (TypeError, OSError):
        return type(task).__name__.lower()
    stem = path.rsplit("/", 1)[-1].removesuffix(".py")
    return stem if stem.replace("_", "").replace("-", "").isalnum() else type(task).__name__.lower()
