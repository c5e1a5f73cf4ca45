"""Watch for losses, gradients and states that are not finite, without making the host wait for each one.

On a GPU the first bad step is noted on the device and read once per interval and before each checkpoint;
on a CPU reading is free and happens at once.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from devgw_runner.errors import NotFiniteError

HINT = "earlier checkpoints are intact; lower the learning rate, or try --grad-clip 1 or --nan skip"


class FiniteWatch:
    """Remembers the first step whose loss or gradient was not finite. Several processes read it together."""

    def __init__(self, device: torch.device, batches_per_epoch: int | None, *, is_alone: bool = True) -> None:
        self._first_bad = torch.full((2,), -1, dtype=torch.int64, device=device)  # by its loss, by its gradient
        self._gradient = torch.zeros((), device=device)
        self._batches_per_epoch = batches_per_epoch
        self._is_host = device.type == "cpu"
        self.reads_at_once = self._is_host and is_alone

    def note_gradient(self, size: Tensor) -> None:
        """Keep the size of the step's gradient, always at one address: a captured graph writes it at each replay."""
        self._gradient.copy_(size)

    def observe(self, loss: Tensor, step: int) -> None:
        """Note the step if its loss or its gradient is the first bad one; no synchronisation on a GPU."""
        if self._is_host:
            for index, value in enumerate((loss, self._gradient)):
                if not math.isfinite(value.item()) and self._first_bad[index] < 0:
                    self._first_bad[index] = step
            return
        is_bad = ~torch.isfinite(torch.stack((loss.detach().float(), self._gradient)))
        self._first_bad.masked_fill_(is_bad & (self._first_bad < 0), step)

    def check(self, agree: Callable[[bool], bool]) -> None:
        """Read the note; `agree` says whether every process has nothing to tell.

        Raises:
            NotFiniteError: a loss or a gradient was not finite; it names step, epoch and batch.
        """
        notes = self._first_bad.tolist()  # SYNC: once per interval and checkpoint
        found = [(step, what) for step, what in zip(notes, ("loss", "gradient"), strict=True) if step >= 0]
        if agree(not found):
            return
        if not found:
            raise NotFiniteError("a loss or a gradient of another process is not finite", HINT)
        step, what = min(found, key=lambda entry: entry[0])
        raise NotFiniteError(f"the {what} is not finite at {self._describe(step)}", HINT)

    def _describe(self, step: int) -> str:
        if not self._batches_per_epoch:
            return f"step {step}"
        epoch, batch = divmod(step - 1, self._batches_per_epoch)
        return f"step {step} (epoch {epoch}, batch {batch})"


def gradient_size(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the size of all gradients of this process, finite if they are; without a synchronisation on a GPU."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if all(type(gradient) is Tensor and gradient.device.type == "cpu" for gradient in gradients):
        quick = _length(gradients)
        if quick is not None and math.isfinite(quick.item()):  # on a CPU reading is free
            return quick
    filled = [local for local in map(_local, gradients) if local.numel()]
    return torch.stack(_magnitudes(filled)).max() if filled else torch.zeros(())


def _length(gradients: list[Tensor]) -> Tensor | None:
    """Return the sum of the gradients' lengths, a third of the work on a CPU; squares may overflow where it is not."""
    if not gradients or any(gradient.is_sparse or not gradient.numel() for gradient in gradients):
        return None
    lengths = torch._foreach_norm(gradients)  # noqa: SLF001 - what torch's own clip_grad_norm_ calls
    return torch.stack(lengths).sum() if len({gradient.dtype for gradient in gradients}) == 1 else None


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold an infinity or no number. One synchronisation for all of them."""
    floating = {
        name: _local(value) for name, value in tensors.items() if value.is_floating_point() or value.is_complex()
    }
    filled = {name: value for name, value in floating.items() if value.numel()}
    if not filled:
        return []
    device = next(iter(filled.values())).device
    magnitudes = torch.stack([size.to(device) for size in _magnitudes(list(filled.values()))])
    verdicts = torch.isfinite(magnitudes).tolist()  # SYNC: once per checkpoint
    return [name for name, is_finite in zip(filled, verdicts, strict=True) if not is_finite]


def _magnitudes(tensors: list[Tensor]) -> list[Tensor]:
    """Return each tensor's largest magnitude; a norm that squares could overflow where nothing is infinite."""
    plain = [torch.view_as_real(value) if value.is_complex() else value for value in tensors]
    wide = [value.float() if value.element_size() == 1 else value for value in plain]  # float8 has no norm
    largest = torch._foreach_norm(wide, math.inf)  # noqa: SLF001 - what torch's own clip_grad_norm_ calls
    return [value.float() for value in largest]


def _local(tensor: Tensor) -> Tensor:
    detached = tensor.detach()
    if detached.is_sparse:
        return detached._values()  # noqa: SLF001 - values() would sort and wait first
    return detached.to_local() if isinstance(detached, DTensor) else detached
