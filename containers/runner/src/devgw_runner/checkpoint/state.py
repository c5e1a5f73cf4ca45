"""What a checkpoint holds: tensors for torch.distributed.checkpoint, and the rest of the trainer beside them.

torch's own `get_state_dict` is not used: on an optimizer without state it takes a step to make some, and
a checkpoint before the first step would no longer be exact.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from devgw_runner.checkpoint import hyperparameters
from devgw_runner.checkpoint import optimizer as optimizer_state
from devgw_runner.checkpoint.encoding import decode, encode
from devgw_runner.checkpoint.layout import Layout, is_separate, lay_out_as_saved
from devgw_runner.checkpoint.optimizer import OPTIMIZER_PREFIX
from devgw_runner.checkpoint.switches import freeze_as_saved, frozen_parameters, read_switches
from devgw_runner.checkpoint.task_state import take_task_apart
from devgw_runner.errors import CheckpointError, OtherModelError
from devgw_runner.loading import StatefulLoader
from devgw_runner.monitor import Monitor
from devgw_runner.optimizers import Schedule
from devgw_runner.parallel.world import failed_by_another
from devgw_runner.randomness import capture_random_state, restore_random_state
from devgw_runner.sampler import Position
from devgw_runner.task import Task

MODEL_PREFIX = "model."


@dataclass
class TrainState:
    """The live objects of a run, everything that a resume must bring back."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: Schedule | None
    scaler: torch.amp.GradScaler
    loader: object
    position: Position
    evaluated_step: int = 0
    skipped_steps: int = 0
    built: dict[str, Any] = field(default_factory=dict)  # what `hyperparameters.describe` says of it
    task: Task[Any] | None = None
    rank: int = 0
    monitor: Monitor = field(default_factory=Monitor)
    stop_reason: str = ""  # what a hook gave, before all processes agreed
    ended: str = ""  # why the task ended the run before its last step
    resting: list[str] = field(default_factory=list)  # modules in evaluation mode when the checkpoint was saved
    frozen_at_start: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.frozen_at_start = frozen_parameters(self.model)


def collect_tensors(state: TrainState) -> dict[str, Tensor]:
    """Return every tensor of model and optimizer under a flat name; the tensors are the live ones."""
    model = {MODEL_PREFIX + name: value for name, value in _model_tensors(state.model).items()}
    return model | optimizer_state.take_apart(state.optimizer)[1] | take_task_apart(state.task, state.rank)[1]


def collect_trainer(state: TrainState) -> dict[str, Any]:
    """Return everything else, in types that `torch.load(weights_only=True)` accepts.

    Raises:
        TaskError: the state of the model, optimizer, schedule or loader holds what cannot be saved.
    """
    loader = state.loader.state_dict() if isinstance(state.loader, StatefulLoader) else {}
    return {
        "position": asdict(state.position),
        "evaluated_step": state.evaluated_step,
        "skipped_steps": state.skipped_steps,
        "random": capture_random_state(),
        "layouts": {name: Layout.of(value).write() for name, value in collect_tensors(state).items()},
        "model": encode(_model_remainder(state.model), "model"),
        "buffers": _own_buffers(state.model),
        "optimizer": optimizer_state.take_apart(state.optimizer)[0],
        "scheduler": encode(state.scheduler.state_dict() if state.scheduler else {}, "schedule"),
        "scaler": encode(state.scaler.state_dict(), "loss scaler"),
        "loader": encode(loader, "loader"),
        "built": state.built,
        "task": take_task_apart(state.task, state.rank)[0],
        "monitor": state.monitor.state_dict(),
        "ended": state.ended,
        "switches": read_switches(state.model, state.frozen_at_start),
    }


def describe_model(model: nn.Module) -> dict[str, list[int]]:
    """Return the name and (global) shape of every tensor of the model."""
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {name: list(value.shape) for name, value in tensors.items()}


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


@dataclass(frozen=True)
class Conditions:
    """How the restored run differs from the one that was saved, as far as memory is concerned."""

    device: torch.device
    same_device: bool = True  # the same kind of device computes
    same_layout: bool = True  # the same memory format and parallelism
    same_world: bool = True


def load_tensors(state: TrainState, checkpoint: Path, saved: dict[str, Any], now: Conditions) -> None:
    """Read model and optimizer tensors into `state`, laid out as they were saved, or resharded to this world.

    `saved` is the trainer file of this process, or of the main one.

    Raises:
        CheckpointError: the files cannot be read, or a tensor cannot come back as it was.
    """
    reader = FileSystemReader(checkpoint)
    if "layouts" in saved:
        layouts = {name: Layout.read(value) for name, value in saved["layouts"].items()}
        skeleton = saved["optimizer"]
    else:
        layouts = optimizer_state.layouts_of_version_1(reader.read_metadata())
        skeleton = optimizer_state.skeleton_of_version_1(saved, layouts)
    wanted = layouts
    if now.same_layout:
        of_model = {k.removeprefix(MODEL_PREFIX): v for k, v in layouts.items() if k.startswith(MODEL_PREFIX)}
        lay_out_as_saved(state.model, of_model, now.device)
    else:
        wanted = optimizer_state.fit_to_parameters(state.optimizer, layouts)

    target = {MODEL_PREFIX + name: value for name, value in _model_tensors(state.model).items()}
    _check_model(target, layouts, now)
    mesh = _mesh_of(state.model)
    for name, layout in wanted.items():
        if name.startswith(OPTIMIZER_PREFIX):
            target[name] = layout.make(now.device, mesh)
    _read(target, checkpoint, reader)
    _fill_model(state.model, target, saved, now)
    optimizer_state.put_back(state.optimizer, skeleton, target, same_device=now.same_device)
    optimizer_state.check_restored(state.optimizer, wanted, same_device=now.same_device)


def load_trainer(state: TrainState, saved: dict[str, Any], *, with_randomness: bool) -> list[str]:
    """Put the trainer's other state back; return which hyperparameters changed. `load_tensors` must have run before."""
    changed: list[str] = []
    if state.built and saved.get("built"):
        step = saved["position"]["step"]
        old, new = saved["built"], state.built
        changed = hyperparameters.take_over(state.optimizer, state.scheduler, saved["scheduler"], old, new, step)
    elif state.scheduler:
        state.scheduler.load_state_dict(decode(saved["scheduler"]))
    state.scaler.load_state_dict(decode(saved["scaler"]))
    if isinstance(state.loader, StatefulLoader) and saved["loader"]:
        state.loader.load_state_dict(decode(saved["loader"]))
    state.position = Position(**saved["position"])
    state.evaluated_step = saved["evaluated_step"]
    state.skipped_steps = saved["skipped_steps"]
    state.monitor.load_state_dict(saved.get("monitor", {}))
    state.ended = saved.get("ended", "")
    switches = saved.get("switches", {})
    freeze_as_saved(state.model, switches, state.frozen_at_start)
    state.resting = switches.get("resting", [])
    if with_randomness:
        restore_random_state(saved["random"])
    return changed


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that torch.distributed.checkpoint saves."""
    entries = model.state_dict().items()
    return {name: value for name, value in entries if isinstance(value, Tensor) and is_separate(value)}


def _model_remainder(model: nn.Module) -> dict[str, Any]:
    """What else a module's state may hold: extra state, expanded and sparse tensors."""
    entries = model.state_dict().items()
    return {name: value for name, value in entries if not (isinstance(value, Tensor) and is_separate(value))}


def _own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Plain tensors that are no parameters: each process has its own, batch norm's statistics among them."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = _model_tensors(model).items()
    return {name: value for name, value in tensors if name not in parameters and not isinstance(value, DTensor)}


def _check_model(live: dict[str, Tensor], layouts: dict[str, Layout], now: Conditions) -> None:
    for name, tensor in live.items():
        there, here = layouts.get(name), Layout.of(tensor)
        if there is None:
            continue
        if not now.same_layout:  # the same values, laid out as the plan asks now
            there = Layout(here.shape, here.stride, there.dtype, here.host, here.placements, here.splits)
        if difference := there.difference(here, same_device=now.same_device):
            raise optimizer_state.refused(name, difference)


def _mesh_of(model: nn.Module) -> DeviceMesh | None:
    return next((p.device_mesh for p in model.parameters() if isinstance(p, DTensor)), None)


def _read(target: dict[str, Tensor], checkpoint: Path, reader: FileSystemReader) -> None:
    try:
        load(target, storage_reader=reader, no_dist=not dist.is_initialized())
    except (CheckpointException, OSError, RuntimeError, ValueError) as exc:
        if failed_by_another(exc):
            raise
        # CheckpointException derives from BaseException and must be named.
        raise CheckpointError(
            f"checkpoint {checkpoint.name} cannot be read: {str(exc).splitlines()[0]}",
            "--resume off starts anew",
        ) from exc


def _fill_model(model: nn.Module, tensors: dict[str, Tensor], saved: dict[str, Any], now: Conditions) -> None:
    values: dict[str, Any] = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
    values |= decode(saved.get("model", {}))
    if now.same_world:
        values |= saved.get("buffers", {})
    model.load_state_dict(values)


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else f"({', '.join(map(str, shape))})"
