"""What the runner shows to a task's hooks. Calling them is `hooks`' duty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True)
class HookContext:
    """What a hook may see and use. Tensors are on the device: reading one makes the host wait for it."""

    cfg: Any
    model: nn.Module
    optimizer: Optimizer
    step: int
    epoch: int
    total_steps: int
    device: torch.device
    rank: int
    world_size: int
    loss: Tensor | None
    metrics: Mapping[str, Tensor]
    _ask_to_stop: Callable[[str], None]

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def stop(self, reason: str) -> None:
        """End the run after this step, with a checkpoint and exit code 0; every process follows."""
        self._ask_to_stop(reason or "no reason given")
