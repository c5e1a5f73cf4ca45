"""What a checkpoint holds: tensors for torch.distributed.checkpoint, and the rest of the trainer beside them.

torch's own `get_state_dict` is not used: on an optimizer without state it takes a step to make some, and
a checkpoint before the first step would no longer be exact.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from devgw_runner.errors import CheckpointError, OtherModelError
from devgw_runner.loading import StatefulLoader
from devgw_runner.randomness import capture_random_state, restore_random_state
from devgw_runner.sampler import Position

MODEL_PREFIX = "model."
OPTIMIZER_PREFIX = "optim."


@dataclass
class TrainState:
    """The live objects of a run, everything that a resume must bring back."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    scaler: torch.amp.GradScaler
    loader: object
    position: Position
    evaluated_step: int = 0
    skipped_steps: int = 0


def collect_tensors(state: TrainState) -> dict[str, Tensor]:
    """Return every tensor of model and optimizer under a flat name; the tensors are the live ones."""
    tensors = {MODEL_PREFIX + name: value for name, value in state.model.state_dict().items()}
    for index, parameter in enumerate(_parameters(state.optimizer)):
        for name, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER_PREFIX}{index}.{name}"] = value
    return tensors


def collect_trainer(state: TrainState) -> dict[str, Any]:
    """Return everything else, in types that `torch.load(weights_only=True)` accepts."""
    optimizer = state.optimizer.state_dict()
    return {
        "position": asdict(state.position),
        "evaluated_step": state.evaluated_step,
        "skipped_steps": state.skipped_steps,
        "random": capture_random_state(),
        "param_groups": optimizer["param_groups"],
        "optimizer_values": {
            index: {name: value for name, value in values.items() if not isinstance(value, Tensor)}
            for index, values in optimizer["state"].items()
        },
        "scheduler": state.scheduler.state_dict() if state.scheduler else {},
        "scaler": state.scaler.state_dict(),
        "loader": state.loader.state_dict() if isinstance(state.loader, StatefulLoader) else {},
    }


def describe_model(model: nn.Module) -> dict[str, list[int]]:
    """Return the name and (global) shape of every tensor of the model."""
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def check_same_model(expected: dict[str, list[int]], model: nn.Module) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        OtherModelError: it names the first tensor that differs.
    """
    actual = describe_model(model)
    for name in sorted(expected.keys() | actual.keys()):
        there, here = expected.get(name), actual.get(name)
        if there != here:
            raise OtherModelError(
                f"the checkpoint is of another model: {name} is {_shape(there)} there, {_shape(here)} here",
                "choose another --run-name, or --resume off to start anew",
            )


def load_tensors(state: TrainState, checkpoint: Path, *, distributed: bool) -> None:
    """Read model and optimizer tensors into `state`, resharding them to this world.

    Raises:
        CheckpointError: torch.distributed.checkpoint could not read the files.
    """
    reader = FileSystemReader(checkpoint)
    target = dict(collect_tensors(state))
    for name, value in _empty_optimizer_tensors(state.optimizer, reader.read_metadata()).items():
        target.setdefault(name, value)
    try:
        load(target, storage_reader=reader, no_dist=not distributed)
    except (CheckpointException, OSError, RuntimeError, ValueError) as exc:
        # CheckpointException derives from BaseException and must be named.
        raise CheckpointError(
            f"checkpoint {checkpoint.name} cannot be read: {str(exc).splitlines()[0]}",
            "--resume off starts anew",
        ) from exc
    model = {k.removeprefix(MODEL_PREFIX): v for k, v in target.items() if k.startswith(MODEL_PREFIX)}
    state.model.load_state_dict(model)
    _fill_optimizer(state.optimizer, target)


def load_trainer(state: TrainState, saved: dict[str, Any], *, with_randomness: bool) -> None:
    """Put the trainer's other state back; `load_tensors` must have run before."""
    current = state.optimizer.state_dict()
    for index, values in saved["optimizer_values"].items():
        current["state"].setdefault(index, {}).update(values)
    state.optimizer.load_state_dict({"state": current["state"], "param_groups": saved["param_groups"]})
    if state.scheduler:
        state.scheduler.load_state_dict(saved["scheduler"])
    state.scaler.load_state_dict(saved["scaler"])
    if isinstance(state.loader, StatefulLoader) and saved["loader"]:
        state.loader.load_state_dict(saved["loader"])
    state.position = Position(**saved["position"])
    state.evaluated_step = saved["evaluated_step"]
    state.skipped_steps = saved["skipped_steps"]
    if with_randomness:
        restore_random_state(saved["random"])


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _empty_optimizer_tensors(optimizer: Optimizer, metadata: Metadata) -> dict[str, Tensor]:
    """Make room for the optimizer tensors that the checkpoint lists; a fresh optimizer has none yet."""
    parameters = _parameters(optimizer)
    room: dict[str, Tensor] = {}
    for name, entry in metadata.state_dict_metadata.items():
        if not name.startswith(OPTIMIZER_PREFIX) or not isinstance(entry, TensorStorageMetadata):
            continue
        index = int(name.removeprefix(OPTIMIZER_PREFIX).split(".")[0])
        if index < len(parameters):
            room[name] = _room_for(entry, parameters[index])
    return room


def _room_for(entry: TensorStorageMetadata, parameter: Tensor) -> Tensor:
    if isinstance(parameter, DTensor) and entry.size == parameter.shape:
        return torch.zeros_like(parameter.detach(), dtype=entry.properties.dtype)
    return torch.zeros(entry.size, dtype=entry.properties.dtype)


def _fill_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(OPTIMIZER_PREFIX):
            index, key = name.removeprefix(OPTIMIZER_PREFIX).split(".", 1)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else f"({', '.join(map(str, shape))})"
