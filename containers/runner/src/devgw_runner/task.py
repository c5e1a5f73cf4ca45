"""What a user writes: a Task with a model, a loss and data.

The task says what to compute; precision, layout, compilation, parallelism and checkpoints are the runner's.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from devgw_runner.config import TrainConfig
from devgw_runner.errors import DataError, TaskError

BatchT = TypeVar("BatchT")


class LossOut(NamedTuple):
    """A loss with named scalar tensors to report beside it; both are means over the batch."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Task(Generic[BatchT]):
    """One training job. `model`, `loss` and `data` are required, the rest has defaults."""

    config: ClassVar[type[TrainConfig]] = TrainConfig

    def model(self, cfg: Any) -> nn.Module:
        """Return a plain module on the CPU; the runner moves, lays out, compiles and shards it."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: BatchT) -> Tensor | LossOut:
        """Return the batch's mean loss as a scalar tensor, or a LossOut."""
        raise NotImplementedError

    def data(self, cfg: Any, split: str) -> Dataset[Any] | Iterable[BatchT] | None:
        """Return the data of split "train" or "val"; None for "val" means no evaluation.

        A map-style Dataset resumes exactly. Any other iterable of batches is accepted; with
        `state_dict`/`load_state_dict` it resumes where it was, without them it is replayed.
        """
        raise NotImplementedError

    def optimizer(self, params: Iterator[nn.Parameter], cfg: Any) -> Optimizer | None:  # noqa: ARG002 - part of the contract
        """Return your optimizer over `params`, or None for a fused AdamW."""
        return None

    def schedule(self, optimizer: Optimizer, cfg: Any, total_steps: int) -> LRScheduler | None:  # noqa: ARG002 - part of the contract
        """Return a scheduler that is stepped once per optimizer step, or None."""
        return None

    def metrics(self, model: nn.Module, batch: BatchT) -> dict[str, Tensor]:  # noqa: ARG002 - part of the contract
        """Return further scalar tensors, computed in evaluation only."""
        return {}

    def flops_per_sample(self, batch: BatchT) -> float | None:  # noqa: ARG002 - part of the contract
        """Return floating-point operations per sample, forward and backward; None has them counted."""
        return None


class LossStep(nn.Module):
    """The model and the task's loss as one module, so that they compile as one graph."""

    def __init__(self, task: Task[Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = (task,)  # a tuple, because a Task may itself be a module and must not be registered

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and the detached metrics of one batch."""
        out = self._task[0].loss(self.model, batch)
        if isinstance(out, LossOut):
            return out.loss, {name: value.detach() for name, value in out.metrics.items()}
        return out, {}


def check_task(task: object) -> None:
    """Refuse a task that lacks a required method.

    Raises:
        TaskError: it names the class and the method.
    """
    if not isinstance(task, Task):
        name = getattr(task, "__name__", type(task).__name__)
        raise TaskError(f"{name} is not a Task", "derive your class from devgw_runner.Task")
    for method in ("model", "loss", "data"):
        if getattr(type(task), method) is getattr(Task, method):
            kind = type(task).__name__
            raise TaskError(f"task {kind} has no '{method}'", f"define {kind}.{method}; see the runner's reference")


def check_loss(loss: object, task: object) -> None:
    """Refuse a loss that cannot be differentiated to one number.

    Raises:
        TaskError: it says what came back instead.
    """
    kind = type(task).__name__
    if not isinstance(loss, Tensor):
        raise TaskError(f"{kind}.loss returned a {type(loss).__name__}", "return a scalar tensor or a LossOut")
    if loss.dim() != 0 or not loss.is_floating_point():
        shape = tuple(loss.shape)
        raise TaskError(f"{kind}.loss has shape {shape} and {loss.dtype}", "return the mean, a floating scalar")
    if not loss.requires_grad:
        raise TaskError(f"{kind}.loss does not depend on the model", "return the loss with its graph, undetached")


def check_batch(batch: object) -> None:
    """Refuse a batch that holds anything but tensors in tuples, lists and dicts.

    Raises:
        DataError: it names the offending type.
    """
    leaves = list(walk_leaves(batch))
    strange = [type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)]
    if strange:
        raise DataError(
            f"a batch holds a {strange[0]}",
            "batches are tensors, or tuples, lists, dicts of tensors",
        )
    if not leaves or any(leaf.dim() == 0 for leaf in leaves if isinstance(leaf, Tensor)):
        raise DataError("a batch holds no samples", "each tensor's first dimension counts the samples")
    sizes = {leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor)}
    if len(sizes) != 1:
        raise DataError(
            f"the tensors of a batch disagree on its size: {sorted(sizes)}",
            "each tensor's first dimension counts the samples",
        )


def walk_leaves(batch: object) -> Iterator[object]:
    """Yield what stands inside nested tuples, lists and dicts, in order."""
    if isinstance(batch, dict):
        for value in batch.values():
            yield from walk_leaves(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from walk_leaves(value)
    else:
        yield batch


def batch_samples(batch: object) -> int:
    """Return how many samples a checked batch holds."""
    first = next(leaf for leaf in walk_leaves(batch) if isinstance(leaf, torch.Tensor))
    return int(first.shape[0])
