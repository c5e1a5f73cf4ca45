"""Before anything is decided: build model and data, look at one small batch, find the facts, make the Plan.

Carrying the plan out is left to `build`.
"""

import inspect
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from devgw_runner import loading, measure
from devgw_runner.agreement import agree_on_facts, require_same_settings
from devgw_runner.batch_tree import is_uniform, split_batch
from devgw_runner.checkpoint.resume import Start
from devgw_runner.checkpoint.start import agree_on_start
from devgw_runner.checkpoint.state import check_same_model
from devgw_runner.config import TrainConfig
from devgw_runner.errors import DataError, OutOfMemoryError, TaskError
from devgw_runner.ladder import rehearse
from devgw_runner.own_loader import OwnLoader
from devgw_runner.parallel.launcher import describe_launcher
from devgw_runner.parallel.loader_sharding import require_sharded
from devgw_runner.parallel.world import World
from devgw_runner.paths import RunPaths
from devgw_runner.placement import give_back_gathered, place_model
from devgw_runner.plan.build import build_plan, pin_choices, pinned_settings
from devgw_runner.plan.choice import Plan
from devgw_runner.plan.facts import DataFacts, Facts
from devgw_runner.precision import autocast_for
from devgw_runner.randomness import make_deterministic, seed_everything
from devgw_runner.resources import read_resources
from devgw_runner.sampler import SampleOrder
from devgw_runner.task import LossStep, Task, batch_samples, check_batch, is_overridden

FIRST_LOOK_SAMPLES = 16  # where the batch size is not decided yet: enough to time a sample
LARGEST_FIRST_LOOK = 64
FIRST_LOOK_REPEATS = 3


@dataclass
class Prepared:
    """A run up to its plan: everything that `--explain` needs."""

    task: Task[Any]
    config: TrainConfig
    paths: RunPaths
    world: World
    device: torch.device
    model: nn.Module
    data: Any
    first_look: Any
    facts: Facts
    plan: Plan
    start: Start
    launchers: tuple[str, ...]
    has_own_optimizer: bool


def prepare(task: Task[Any], config: TrainConfig, paths: RunPaths, world: World, device: torch.device) -> Prepared:
    """Build model and data, look at one small batch, find the facts, and decide.

    Raises:
        RunnerError: task, data, checkpoint, precision or settings stand in the way.
    """
    require_same_settings(config, world)
    start, launchers = agree_on_start(config.resume, paths.checkpoints, world, describe_launcher())
    found = start.found
    numerics = found.manifest.numerics if found else {}
    pinned = pinned_settings(config, numerics)
    config = pin_choices(config, numerics)
    seed_everything(config.seed)
    if config.deterministic:
        make_deterministic()
    model = _build_model(task, config)
    if found is not None:
        check_same_model(found.manifest.model, model)
    data: Any = task.data(config, "train")
    if data is not None and not loading.is_map_style(data) and hasattr(data, "__iter__"):
        require_sharded(data, world)
        data = OwnLoader(data, config.seed)
    try:
        first_look, load_seconds = _look_at_data(task, data, config)
        facts = _find_facts(task, world, device, model, data, first_look, load_seconds)
        facts = agree_on_facts(facts, world)
        place_model(task, model, config, facts, device)
        facts = _measure_within_memory(task, LossStep(task, model), first_look, facts, config, device)
        facts = agree_on_facts(facts, world)
        give_back_gathered(model)
        plan = build_plan(config, facts, found.note() if found else "", pinned)
    except BaseException:
        close_data(data)
        raise
    own = facts.has_own_optimizer
    return Prepared(task, config, paths, world, device, model, data, first_look, facts, plan, start, launchers, own)


def close_data(data: object) -> None:
    """End the processes of the task's own loader, which is opened once for the first look and the first steps."""
    if isinstance(data, OwnLoader):
        data.close()


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
        if not isinstance(data, OwnLoader):
            raise DataError(f"the train data is a {type(data).__name__}", "return a data set or an iterable of batches")
        first = data.look()
        check_batch(first, task)
        return first, 0.0
    length = loading.dataset_length(data, "train")
    wanted = FIRST_LOOK_SAMPLES if config.batch_size == "auto" else min(config.batch_size, LARGEST_FIRST_LOOK)
    wanted = wanted if config.micro_batch == "auto" else min(wanted, config.micro_batch)
    order = SampleOrder(length, min(wanted, length), config.seed, last_batch="pad")
    loading.load_first_batch(data, order)  # the first access opens files and imports; those after are the usual ones
    seconds = []
    for _ in range(FIRST_LOOK_REPEATS):
        started = time.perf_counter()
        first = loading.load_first_batch(data, order)
        seconds.append(time.perf_counter() - started)
    check_batch(first, task)
    return first, min(seconds) / order.batch_size


def _find_facts(
    task: Task[Any],
    world: World,
    device: torch.device,
    model: nn.Module,
    data: Any,
    first_look: Any,
    load_seconds: float,
) -> Facts:
    has_length = loading.is_map_style(data)
    return Facts(
        device=measure.device_facts(device),
        model=measure.model_facts(model),
        data=DataFacts(
            length=len(data) if has_length else None,
            sample_bytes=measure.batch_bytes(first_look) // batch_samples(first_look),
            load_seconds_per_sample=load_seconds,
            varies=not is_uniform(first_look),
            loader_batch=1 if has_length else batch_samples(first_look),
            loader_batches=None if has_length else loading.loader_length(data),
        ),
        resources=read_resources(),
        world=world.size,
        local_world=world.local_size,
        has_compiler=measure.has_cpp_compiler(),
        has_own_optimizer=is_overridden(task, "optimizer") or is_overridden(task, "optimizers"),
        has_gradient_hook=is_overridden(task, "on_before_optimizer_step"),
        has_turns=bool(task.turns),
        has_torchao=measure.has_torchao(),
    )


def _measure_within_memory(
    task: Task[Any], step: LossStep, first_look: Any, facts: Facts, config: TrainConfig, device: torch.device
) -> Facts:
    """Run the first look; out of memory, halve it and try again, as `--oom` says.

    Raises:
        OutOfMemoryError: the policy is to stop, or one sample is too many.
    """
    look = first_look
    if config.micro_batch != "auto":
        look = split_batch(look, config.micro_batch, batch_samples(look))[0]
    while True:
        try:
            batch = loading.move_batch(look, device, torch.contiguous_format)
            return _measure_step(task, step, batch, facts, config)
        except torch.OutOfMemoryError as exc:
            size = batch_samples(look)
            if config.oom == "stop" or size == 1 or facts.world > 1:
                raise OutOfMemoryError(
                    f"out of device memory with {size} samples at once in the first look at the task",
                    f"--micro-batch {max(1, size // 2)} accumulates gradients over smaller parts",
                ) from exc
            step.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            look = split_batch(look, -(-size // 2), size)[0]
            facts = replace(facts, fitting_samples=batch_samples(look))


def _measure_step(task: Task[Any], step: LossStep, batch: Any, facts: Facts, config: TrainConfig) -> Facts:
    autocast = autocast_for("fp32", torch.device(facts.device.kind), sharded=False)
    measure.check_first_loss(step, batch, task)
    if config.batch_size == "auto" or config.micro_batch == "auto":
        facts = replace(facts, bytes_per_sample=measure.measure_bytes_per_sample(step, batch, autocast))
    if facts.fitting_samples is not None:
        rehearse(step, batch, autocast)  # a forward pass alone does not show that a backward pass fits
    if config.compile == "auto" and facts.device.kind == "cpu" and not config.deterministic:
        seconds = measure.time_step(step, batch, autocast)
        facts = replace(facts, eager_seconds_per_sample=seconds / batch_samples(batch))
    return facts


def script_name(task: Task[Any]) -> str:
    """Return the default run name: the script's file name, or the task's class name in a notebook."""
    try:
        path = inspect.getfile(type(task))
    except (TypeError, OSError):
        return type(task).__name__.lower()
    stem = path.rsplit("/", 1)[-1].removesuffix(".py")
    return stem if stem.replace("_", "").replace("-", "").isalnum() else type(task).__name__.lower()
