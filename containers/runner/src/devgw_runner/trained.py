"""A trained model: the task of a script with the weights, and the task's own state, of a checkpoint.

What `evaluate`, `predict` and `export` start from. Training goes on elsewhere (`build`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from devgw_runner import loading
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.state import TrainState, check_same_model
from devgw_runner.checkpoint.store import read_manifest
from devgw_runner.checkpoint.task_state import restore_task
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import read_config
from devgw_runner.errors import DataError
from devgw_runner.hooks import Hooks
from devgw_runner.measure import find_device
from devgw_runner.optimizers import make_optimizer
from devgw_runner.parallel.world import World
from devgw_runner.precision import AutocastFactory, autocast_for, scaler_for
from devgw_runner.randomness import seed_everything
from devgw_runner.sampler import Position, SampleOrder
from devgw_runner.script import find_task
from devgw_runner.task import Task, check_task

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Trained:
    """`model` is the one to evaluate with (`Task.evaluation_model`), in evaluation mode, on `device`."""

    task: Task[Any]
    config: TrainConfig
    model: nn.Module
    device: torch.device
    checkpoint: Path
    step: int

    @property
    def autocast(self) -> AutocastFactory:
        precision = "fp32" if self.config.precision == "auto" else self.config.precision
        return autocast_for(precision, self.device, sharded=False)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors of `model` on the CPU, each for itself; an average's under the names of what it averages."""
        model = self.model.module if isinstance(self.model, AveragedModel) else self.model
        state = model.state_dict().items()
        return {name: value.cpu().to_dense().clone().contiguous() for name, value in state if isinstance(value, Tensor)}


def load_trained(script: str, checkpoint: Path, arguments: Sequence[str]) -> Trained:
    """Build the script's model and fill it from a checkpoint; the task gets back what it kept beside it.

    Raises:
        UsageError, TaskError: the script or its settings are wrong.
        OtherModelError, CheckpointError: the checkpoint is of another model, or corrupt.
    """
    task_type = find_task(script)
    config = read_config(task_type.config, arguments, os.environ)
    task = task_type()
    check_task(task)
    seed_everything(config.seed)
    device = find_device(config.device, 0)
    model = task.model(config)
    weights = read_weights(checkpoint)
    check_same_model({name: list(value.shape) for name, value in weights.items()}, model)
    model.load_state_dict(weights)
    model.to(device)
    _give_back_task_state(task, config, model, checkpoint, device)
    return Trained(
        task, config, task.evaluation_model(model).eval(), device, checkpoint, read_manifest(checkpoint).step
    )


def batches_of(trained: Trained, split: str) -> Iterator[Any]:
    """Yield the split's batches in order, on the device; the last may be short.

    Raises:
        DataError: the task has no such data, or it is empty.
    """
    task, config = trained.task, trained.config
    data = task.data(config, split)
    if data is None:
        raise DataError(f"the task has no data for '{split}'", f"let {type(task).__name__}.data return it")
    for batch in _host_batches(data, config, split):
        yield loading.move_batch(batch, trained.device, torch.contiguous_format)


def _host_batches(data: Any, config: TrainConfig, split: str) -> Iterator[Any]:
    if not loading.is_map_style(data):
        yield from data
        return
    length = loading.dataset_length(data, split)
    wanted = DEFAULT_BATCH if config.batch_size == "auto" else config.batch_size
    order = SampleOrder(length, min(wanted, length), config.seed, shuffle=False, last_batch="eager")
    workers = 0 if config.workers == "auto" else config.workers
    batches = loading.open_dataset(data, order, Position(), workers=workers, pin=False)
    for _ in range(order.batches_per_epoch):
        yield next(batches)


def _give_back_task_state(
    task: Task[Any], config: TrainConfig, model: nn.Module, checkpoint: Path, device: torch.device
) -> None:
    trainer = checkpoint / "trainer-0.pt"
    saved = torch.load(trainer, weights_only=True, map_location="cpu") if trainer.is_file() else {}
    if not saved.get("task"):
        return
    optimizer = make_optimizer(task, model, config)
    scaler = scaler_for("fp32", device)
    state = TrainState(model, optimizer, None, scaler, loader=None, position=Position(), task=task)
    Hooks(task, config, state, World(), device, total_steps=0).setup()
    restore_task(task, saved, checkpoint, device)
