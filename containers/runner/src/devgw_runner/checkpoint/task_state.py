"""What a Task keeps beside the model: averages, teachers, counters. Saved and put back with each checkpoint.

Tensors travel with the model's through torch.distributed.checkpoint, under names that say whose they are,
since each process may keep its own; all else stands in the trainer's file.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor

from devgw_runner.checkpoint.encoding import decode, encode
from devgw_runner.checkpoint.layout import Layout, is_separate
from devgw_runner.errors import CheckpointError
from devgw_runner.task import Task

TASK_PREFIX = "task."
SHARED = "shared"  # in the place of a rank: a DTensor belongs to all processes


def take_task_apart(task: Task[Any] | None, rank: int) -> tuple[Any, dict[str, Tensor]]:
    """Return the task's state with marks where tensors were, and those tensors by flat name; they are the live ones.

    Raises:
        TaskError: it holds something that a checkpoint cannot.
    """
    tensors: dict[str, Tensor] = {}

    def take(path: tuple[Any, ...], tensor: Tensor) -> str | None:
        if not is_separate(tensor):
            return None
        owner = SHARED if isinstance(tensor, DTensor) else str(rank)
        name = TASK_PREFIX + ".".join(map(str, (owner, *path)))
        if name in tensors:
            return None
        tensors[name] = tensor.detach()
        return name

    state = task.state_dict() if task is not None else {}
    return encode(state, f"task {type(task).__name__}", take), tensors


def restore_task(task: Task[Any], saved: dict[str, Any], checkpoint: Path, device: torch.device) -> None:
    """Give the task back what it kept; `saved` is the trainer file of this process, or of the main one.

    What is sharded here gets its shards, also where the checkpoint has it whole; in a single process it is whole.

    Raises:
        CheckpointError: a sharded tensor of the checkpoint is not there to be filled.
    """
    live = take_task_apart(task, rank=0)[1]
    distributed = torch.distributed.is_initialized()
    target: dict[str, Tensor] = {}
    for name, written in saved.get("layouts", {}).items():
        if name.startswith(TASK_PREFIX):
            target[name] = _room(name, Layout.read(written), live, device, alone=not distributed)
    if target or distributed:
        load(target, storage_reader=FileSystemReader(checkpoint), no_dist=not distributed)
    state = decode(saved.get("task"), target)
    if state:
        task.load_state_dict(state)


def _room(name: str, layout: Layout, live: dict[str, Tensor], device: torch.device, *, alone: bool) -> Tensor:
    path = name.split(".", 2)[-1]
    sharded = live.get(f"{TASK_PREFIX}{SHARED}.{path}")
    if sharded is not None:
        return torch.empty_like(sharded)
    if layout.placements is None or alone:
        return layout.make(device)
    raise CheckpointError(
        f"the task's sharded tensor {path} is in the checkpoint and not in the task",
        "make it in Task.setup, so that it is there before a checkpoint is loaded",
    )
