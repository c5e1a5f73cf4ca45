"""The top rung: forward, backward and optimizer step captured as one CUDA graph.

Raw `torch.cuda.graph`, never `make_graphed_callables` (its static gradients are silently shared,
pytorch/pytorch#181723). Whether capturing pays is measured here; whether it is allowed is `plan.numerics`'.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from devgw_runner.batch_tree import map_leaves, walk_leaves
from devgw_runner.compiler_counts import signature

StepFunction = Callable[[Any], tuple[Tensor, dict[str, Tensor]]]

MEASURED_STEPS = 5
# Launching must take most of the step before a graph can gain more than noise.
LAUNCH_BOUND_SHARE = 0.9


@dataclass(frozen=True)
class LaunchTimes:
    """Seconds per step: what the host needs to enqueue it, and how long the step takes."""

    host_seconds: float
    step_seconds: float

    @property
    def is_launch_bound(self) -> bool:
        return self.host_seconds >= LAUNCH_BOUND_SHARE * self.step_seconds

    def describe(self) -> str:
        host, step = self.host_seconds * 1e3, self.step_seconds * 1e3
        return f"the host launches for {host:.2f} of {step:.2f} ms per step"


class LaunchMeter:
    """Measures real training steps: nothing is run twice for the measurement."""

    def __init__(self) -> None:
        self._host_seconds: list[float] = []
        self._started = 0.0

    def run(self, step: StepFunction, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Run one step and note how long the host was busy with it."""
        if not self._host_seconds:
            torch.cuda.synchronize()  # SYNC: once, before the measured steps
            self._started = time.perf_counter()
        begin = time.perf_counter()
        out = step(batch)
        self._host_seconds.append(time.perf_counter() - begin)
        return out

    @property
    def is_done(self) -> bool:
        return len(self._host_seconds) >= MEASURED_STEPS

    def times(self) -> LaunchTimes:
        """Return the means over the measured steps."""
        torch.cuda.synchronize()  # SYNC: once, after the measured steps
        elapsed = time.perf_counter() - self._started
        steps = len(self._host_seconds)
        return LaunchTimes(sum(self._host_seconds) / steps, elapsed / steps)


class WholeStepGraph:
    """One captured training step with its static input, loss and metrics.

    The gradients keep their addresses (`set_to_none=False`) and the optimizer must be capturable.
    Capturing does not execute, so no state changes before the first `replay`.
    """

    def __init__(self, step: StepFunction, example: Any) -> None:
        self._static_batch = _clone(example)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        stream.wait_stream(torch.cuda.current_stream())
        # Other threads may call CUDA meanwhile, to pin a batch or to write a checkpoint; that is theirs.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._loss, self._metrics = step(self._static_batch)
        torch.cuda.current_stream().wait_stream(stream)

    def fits(self, batch: Any) -> bool:
        """Say whether a batch has the captured shapes and dtypes."""
        return signature(batch) == signature(self._static_batch)

    def replay(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Run one step; the returned tensors are copies, because the next replay overwrites the originals."""
        for static, new in zip(walk_leaves(self._static_batch), walk_leaves(batch), strict=True):
            if isinstance(static, Tensor) and isinstance(new, Tensor):
                static.copy_(new, non_blocking=True)
        self._graph.replay()
        return self._loss.clone(), {name: value.clone() for name, value in self._metrics.items()}


def make_capturable(optimizer: Optimizer) -> None:
    """Put step counts and learning rates on the device, so that a replay reads their current values."""
    for group in optimizer.param_groups:
        if not group["params"]:
            continue
        if "capturable" in group:
            group["capturable"] = True
        if not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(float(group["lr"]))
        _move_settings(group)
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device)


def settle_settings(optimizer: Optimizer) -> None:
    """Bring back from host memory what a resumed graphed run has as tensors; on a CPU it has none of them."""
    for group in optimizer.param_groups:
        if not group["params"]:
            continue
        # Only what `make_capturable` left: a task's own optimizer may have a tensor for a learning rate, and keeps it.
        if group["params"][0].device.type == "cpu" and group.get("capturable"):
            group["capturable"] = False
            if isinstance(group["lr"], Tensor):
                group["lr"] = float(group["lr"])
        _move_settings(group)


def _move_settings(group: dict[str, Any]) -> None:
    """A capture would bake in the value of a tensor in host memory, and the schedule would be dead."""
    device = group["params"][0].device
    for name, value in group.items():
        if isinstance(value, Tensor):
            group[name] = value.to(device)


def _clone(batch: Any) -> Any:
    return map_leaves(batch, lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)
