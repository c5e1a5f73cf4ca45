"""Call the task's hooks: what a user wants done at a step, an epoch, an evaluation, the start and the end.

A hook that the task does not define costs nothing. What hooks change is theirs to save (`Task.state_dict`).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from devgw_runner.checkpoint.state import TrainState
from devgw_runner.checkpoint.task_state import take_task_apart
from devgw_runner.errors import TaskError
from devgw_runner.hook_context import HookContext
from devgw_runner.parallel.world import World
from devgw_runner.task import Task, is_overridden

# Beside the numbers of signals in what the processes agree on; a signal, whatever its number, is smaller.
TASK_STOP = 0x100


class Hooks:
    """Calls one task's hooks with the run's present position."""

    def __init__(
        self,
        task: Task[Any],
        cfg: Any,
        state: TrainState,
        world: World,
        device: torch.device,
        total_steps: int,
    ) -> None:
        self._task = task
        self._cfg = cfg
        self._state = state
        self._world = world
        self._device = device
        self._total_steps = total_steps
        self._defined = {name for name in HOOKS if is_overridden(task, name)}

    @property
    def see_gradients(self) -> bool:
        return "on_before_optimizer_step" in self._defined

    @property
    def see_evaluations(self) -> bool:
        return "on_evaluation_end" in self._defined

    def setup(self) -> None:
        """Before a checkpoint is loaded, with the model in its place.

        Raises:
            TaskError: it copies a model that cannot be copied, or what the task keeps cannot be saved.
        """
        try:
            self._call("setup")
        except AssertionError as exc:
            if "does not support deepcopy" not in str(exc):
                raise
            hint = "keep a whole model of Task.model beside it: docs/howto/keep-an-average.md, or --parallel ddp"
            raise TaskError(
                f"{type(self._task).__name__}.setup copies a sharded model, which torch refuses", hint
            ) from exc
        take_task_apart(self._task, self._world.rank)

    def train_start(self) -> None:
        self._call("on_train_start")

    def before_optimizer_step(self) -> None:
        self._call("on_before_optimizer_step")

    def step_end(self, loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
        """After each optimizer step; after the last of an epoch, the epoch's hook too."""
        self._call("on_step_end", loss=loss, metrics=metrics)
        if self._state.position.samples == 0:
            self._call("on_epoch_end")

    def evaluation_end(self, means: Mapping[str, float]) -> None:
        if self.see_evaluations:
            self._task.on_evaluation_end(self._context(), means)

    def train_end(self) -> None:
        self._call("on_train_end")

    def _call(self, name: str, **seen: Any) -> None:
        if name in self._defined:
            getattr(self._task, name)(self._context(**seen))

    def _context(self, loss: Tensor | None = None, metrics: Mapping[str, Tensor] | None = None) -> HookContext:
        return HookContext(
            cfg=self._cfg,
            model=self._state.model,
            optimizer=self._state.optimizer,
            step=self._state.position.step,
            epoch=self._state.position.epoch,
            total_steps=self._total_steps,
            device=self._device,
            rank=self._world.rank,
            world_size=self._world.size,
            loss=loss,
            metrics=metrics or {},
            _ask_to_stop=self._ask_to_stop,
        )

    def _ask_to_stop(self, reason: str) -> None:
        self._state.stop_reason = reason


HOOKS = (
    "setup",
    "on_train_start",
    "on_before_optimizer_step",
    "on_step_end",
    "on_epoch_end",
    "on_evaluation_end",
    "on_train_end",
)


def wished_stop(state: TrainState, stop_signal: int) -> int:
    """Return what this process offers to the others: its signal, else its task's wish to end, else 0."""
    return stop_signal or (TASK_STOP if state.stop_reason and not state.ended else 0)


def take_task_stop(state: TrainState, agreed: int) -> int:
    """Turn a stop that a hook asked for into the run's end; pass a real signal through."""
    if agreed != TASK_STOP:
        return agreed
    state.ended = state.stop_reason or "another process asked for it"
    return 0
