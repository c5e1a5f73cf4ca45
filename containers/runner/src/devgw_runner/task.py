"""What a user writes: a Task with a model, a loss and data.

The task says what to compute; precision, layout, compilation, parallelism and checkpoints are the runner's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from devgw_runner.batch_tree import count_samples, moves_itself, walk_leaves
from devgw_runner.blocks import find_blocks
from devgw_runner.config import TrainConfig
from devgw_runner.errors import DataError, TaskError
from devgw_runner.hook_context import HookContext
from devgw_runner.metrics.sinks import Sink

BatchT = TypeVar("BatchT")
LABELS = frozenset({"label", "labels", "target", "targets", "y"})


class LossOut(NamedTuple):
    """A loss with named scalar tensors to report beside it; both are means over the batch."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Task(Generic[BatchT]):
    """One training job. `model`, `loss` and `data` are required, the rest has defaults."""

    config: ClassVar[type[TrainConfig]] = TrainConfig
    turns: ClassVar[tuple[str, ...]] = ()
    """Names of `optimizers` that take turns within a step, each with its own loss (`turn_loss`), as in a GAN."""

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

    def optimizers(self, model: nn.Module, cfg: Any) -> Optimizer | Mapping[str, Optimizer] | None:  # noqa: ARG002 - part of the contract
        """Return optimizers by name over the model's parameters, chosen by their names; None asks `optimizer`."""
        return None

    def schedule(
        self,
        optimizer: Optimizer,  # noqa: ARG002 - part of the contract
        cfg: Any,  # noqa: ARG002 - part of the contract
        total_steps: int,  # noqa: ARG002 - part of the contract
    ) -> LRScheduler | list[LRScheduler] | dict[str, LRScheduler] | None:
        """Return a scheduler, or several, or None.

        Each is stepped once per optimizer step, ReduceLROnPlateau after each evaluation with `--monitor`.
        With several optimizers `optimizer["name"]` is one of them.
        """
        return None

    def turn_loss(self, turn: str, model: nn.Module, batch: BatchT) -> Tensor | LossOut:
        """Return the loss of one of `turns`; only that optimizer is stepped with its gradients."""
        raise NotImplementedError

    def metrics(self, model: nn.Module, batch: BatchT) -> dict[str, Tensor]:  # noqa: ARG002 - part of the contract
        """Return further scalar tensors, computed in evaluation only."""
        return {}

    def setup(self, ctx: HookContext) -> None:
        """Make what the task keeps beside the model; the model is on its device, no checkpoint is loaded yet."""

    def on_train_start(self, ctx: HookContext) -> None:
        """Do something after a checkpoint was loaded, before the first step."""

    def on_before_optimizer_step(self, ctx: HookContext) -> None:
        """Look at the gradients, or change them, before the optimizer uses them; whole-step graphs are then off."""

    def on_step_end(self, ctx: HookContext) -> None:
        """Do something after each optimizer step; `ctx.loss` and `ctx.metrics` are on the device."""

    def on_epoch_end(self, ctx: HookContext) -> None:
        """Do something after the last step of an epoch, before its evaluation."""

    def on_evaluation_end(self, ctx: HookContext, means: Mapping[str, float]) -> None:
        """Do something with the means of a whole evaluation; the loss is among them."""

    def on_train_end(self, ctx: HookContext) -> None:
        """Do something after the last checkpoint; what is changed here is not saved."""

    def evaluation_model(self, model: nn.Module) -> nn.Module:
        """Return the module to evaluate with: an average kept beside the model, say."""
        return model

    def state_dict(self) -> dict[str, Any]:
        """Return what the task keeps beside the model: tensors, numbers, strings, nested as you like."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned when the checkpoint was saved."""

    def loggers(self, cfg: Any) -> Iterable[Sink]:  # noqa: ARG002 - part of the contract
        """Return loggers of your own: objects with `write(record)` and `close()`; only the main process asks."""
        return ()

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """Return the repeated layers, for `--activation-checkpointing`; by default the members of its ModuleLists."""
        return find_blocks(model)

    def tensor_plan(self, model: nn.Module) -> Mapping[str, Any]:  # noqa: ARG002 - part of the contract
        """Return how `--tensor-parallel` shares layers: names, with `*`, and styles of torch.distributed.tensor."""
        return {}

    def samples(self, batch: BatchT) -> int:
        """Return how many samples a batch holds; the default counts what usual batches hold."""
        return count_samples(batch)

    def inputs(self, batch: BatchT) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what of a batch the model is called with, for `predict` and `devgw-run export`.

        The default leaves out what it is compared with: the first of a tuple; of a mapping all but its labels.
        """
        if isinstance(batch, Mapping):
            return (), {str(name): value for name, value in batch.items() if name not in LABELS}
        if isinstance(batch, tuple | list):
            return (batch[0],), {}
        return (batch,), {}

    def predict(self, model: nn.Module, batch: BatchT) -> Any:
        """Return the model's outputs for a batch, for `devgw-run predict`: a tensor, or several in a mapping."""
        arguments, keywords = self.inputs(batch)
        return model(*arguments, **keywords)

    def flops_per_sample(self, batch: BatchT) -> float | None:  # noqa: ARG002 - part of the contract
        """Return floating-point operations per sample, forward and backward; None has them counted."""
        return None


def is_overridden(task: Task[Any], name: str) -> bool:
    """Say whether the task defines `name` itself."""
    return getattr(type(task), name) is not getattr(Task, name)


class LossStep(nn.Module):
    """The model and the task's loss as one module, so that they compile as one graph."""

    def __init__(self, task: Task[Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._first_turn = next(iter(type(task).turns), "")
        self._task = (task,)  # a tuple, because a Task may itself be a module and must not be registered

    def forward(self, batch: Any, turn: str | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and the detached metrics of one batch, for the first turn unless one is named."""
        turn = self._first_turn if turn is None else turn
        out = self._task[0].turn_loss(turn, self.model, batch) if turn else self._task[0].loss(self.model, batch)
        if isinstance(out, LossOut):
            check_metrics(out.metrics, self._task[0], "turn_loss" if turn else "loss")
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
    for method in ("model", "turn_loss" if type(task).turns else "loss", "data"):
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


def check_metrics(metrics: Mapping[str, object], task: object, method: str) -> None:
    """Refuse a metric that is not one number in a tensor: a plain number would stay what it was when compiled.

    Raises:
        TaskError: it names the metric and says what it is.
    """
    for name, value in metrics.items():
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            continue
        what = f"has shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
        if isinstance(value, Tensor) and value.is_complex():
            what = f"is of {value.dtype}"
        text = f"the metric {name} of {type(task).__name__}.{method} {what}"
        raise TaskError(text, "return its mean as a scalar tensor on the batch's device")


def check_batch(batch: object, task: Task[Any] | None = None) -> int:
    """Refuse a batch without tensors or without a number of samples; return the number.

    Raises:
        DataError: it says what the batch is.
    """
    if not any(isinstance(leaf, Tensor) or moves_itself(leaf) for leaf in walk_leaves(batch)):
        first = next((type(leaf).__name__ for leaf in walk_leaves(batch)), "")
        what = f"a {first} and no tensor" if first else "no samples"
        raise DataError(f"a batch holds {what}", "let the data, or its 'collate', make tensors")
    samples = count_samples(batch) if task is None else task.samples(batch)
    if not isinstance(samples, int) or samples < 1:
        kind = type(task).__name__
        raise DataError(f"{kind}.samples returned {samples!r} for a batch", "return how many samples it holds")
    return samples


# How the samples of a batch are counted in this run: as the task says.
_counting: ContextVar[Callable[[Any], int]] = ContextVar("counting", default=count_samples)


@contextmanager
def counting_samples(task: Task[Any]) -> Iterator[None]:
    """Let `batch_samples` ask the task while the block runs."""
    token = _counting.set(task.samples if is_overridden(task, "samples") else count_samples)
    try:
        yield
    finally:
        _counting.reset(token)


def batch_samples(batch: Any) -> int:
    """Return how many samples a batch holds, as the running task says."""
    return _counting.get()(batch)
