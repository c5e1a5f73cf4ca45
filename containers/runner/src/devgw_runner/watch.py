"""Watch for losses that are not finite without making the host wait for each one.

On a GPU the first bad step is noted on the device and read once per interval and before each checkpoint;
on a CPU reading is free and happens at once.
"""

import math

import torch
from torch import Tensor

from devgw_runner.errors import NotFiniteError


class LossWatch:
    """Remembers the first step whose loss was not finite."""

    def __init__(self, device: torch.device, batches_per_epoch: int | None) -> None:
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._batches_per_epoch = batches_per_epoch
        self.reads_at_once = device.type == "cpu"

    def observe(self, loss: Tensor, step: int) -> None:
        """Note the step if its loss is the first bad one; no synchronisation on a GPU."""
        if self.reads_at_once:
            if not math.isfinite(loss.item()):
                self._first_bad.fill_(step)
            return
        is_first = ~torch.isfinite(loss.detach()) & (self._first_bad < 0)
        self._first_bad.masked_fill_(is_first, step)

    def check(self) -> None:
        """Read the note.

        Raises:
            NotFiniteError: a loss was not finite; it names step, epoch and batch.
        """
        step = int(self._first_bad)  # SYNC: once per interval and checkpoint
        if step < 0:
            return
        where = f"step {step}"
        if self._batches_per_epoch:
            epoch, batch = divmod(step - 1, self._batches_per_epoch)
            where += f" (epoch {epoch}, batch {batch})"
        raise NotFiniteError(
            f"the loss is not finite at {where}",
            "earlier checkpoints are intact; lower the learning rate, or try --grad-clip 1 or --nan skip",
        )
