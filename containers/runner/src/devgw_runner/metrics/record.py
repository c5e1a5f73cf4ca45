"""One interval of training in numbers, and the meter that gathers it without extra synchronisation.

Writing records is left to `sinks` and `prometheus`.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """The means of one interval; seconds are wall clock, rates are over all processes."""

    kind: str  # "train" or "val"
    step: int
    epoch: int
    loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    step_seconds: float = 0.0
    samples_per_second: float = 0.0
    data_wait_seconds: float = 0.0
    mfu: float | None = None
    memory_bytes: int = 0
    compile_seconds: float = 0.0
    recompiles: int = 0
    checkpoint_age_seconds: float = 0.0
    skipped_steps: int = 0
    graphs: int = 0
    graph_breaks: int = 0
    eager_shape_parts: int = 0
    batch_in_epoch: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return one flat object; metrics stand under their own names with the prefix `metric_`."""
        flat = {name: value for name, value in vars(self).items() if name != "metrics"}
        return {
            "time": time.time(),
            **flat,
            **{f"metric_{name}": value for name, value in self.metrics.items()},
        }


class Meter:
    """Sums loss and metrics on the device, and waits for them only when asked for the mean."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._restart()

    def _restart(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._samples = 0
        self.data_wait_seconds = 0.0
        self._started = time.perf_counter()

    @property
    def steps(self) -> int:
        return self._steps

    def add(self, loss: Tensor, metrics: dict[str, Tensor], samples: int) -> None:
        """Add one step, without a synchronisation."""
        self._accumulate("loss", loss)
        for name, value in metrics.items():
            self._accumulate(name, value)
        self._steps += 1
        self._samples += samples

    def take(self) -> tuple[dict[str, float], float, float, float]:
        """Return means, seconds per step, samples per second, waiting seconds; start a new interval."""
        steps = max(1, self._steps)
        means = {name: float(total) / steps for name, total in self._sums.items()}  # SYNC: once per interval
        elapsed = time.perf_counter() - self._started
        rates = (elapsed / steps, self._samples / max(elapsed, 1e-9), self.data_wait_seconds / steps)
        self._restart()
        return means, *rates

    def _accumulate(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
