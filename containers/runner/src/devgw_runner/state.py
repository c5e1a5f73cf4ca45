"""The parts of one run, put together by `build` and driven by `loop`."""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn

from devgw_runner.checkpoint.state import TrainState
from devgw_runner.checkpoint.writer import CheckpointWriter
from devgw_runner.compiler_counts import CompiledShapes, CompilerCounts
from devgw_runner.config import TrainConfig
from devgw_runner.graphs import LaunchMeter, WholeStepGraph
from devgw_runner.hooks import Hooks
from devgw_runner.ladder import Climb
from devgw_runner.metrics.record import Meter
from devgw_runner.metrics.recorder import Recorder
from devgw_runner.parallel.world import StopConsensus, World
from devgw_runner.paths import RunPaths
from devgw_runner.plan.choice import Plan
from devgw_runner.precision import AutocastFactory
from devgw_runner.profiling import Profiler
from devgw_runner.sampler import Position
from devgw_runner.signals import Signals
from devgw_runner.switch_watch import SwitchWatch
from devgw_runner.task import LossStep, Task
from devgw_runner.watch import FiniteWatch


class Order(Protocol):
    """How long an epoch is, for a data set (SampleOrder) or a loader (StreamOrder)."""

    @property
    def global_batch(self) -> int: ...
    def after(self, position: Position) -> Position: ...
    def resumed(self, position: Position) -> Position: ...
    def last_step(self, position: Position, epochs: int) -> int: ...
    @property
    def batches_per_epoch(self) -> int | None: ...


@dataclass(frozen=True)
class StreamOrder:
    """The order of a task's own loader: its batches count as one sample each. `batch` is how many they hold."""

    batches_per_epoch: int | None
    batch: int = 0

    @property
    def global_batch(self) -> int:
        return 1

    def after(self, position: Position) -> Position:
        """Return the position one optimizer step later."""
        return self._wrapped(replace(position, step=position.step + 1, samples=position.samples + 1, batch=self.batch))

    def resumed(self, position: Position) -> Position:
        """Return where to go on: batches that held more or fewer samples are converted."""
        if position.batch and self.batch:
            position = replace(position, samples=position.samples * position.batch // self.batch)
        return self._wrapped(position)

    def last_step(self, position: Position, epochs: int) -> int:
        """Return the step at which `epochs` are over."""
        if self.batches_per_epoch is None or position.epoch >= epochs:
            return position.step
        return position.step + (epochs - position.epoch) * self.batches_per_epoch - position.samples

    def _wrapped(self, position: Position) -> Position:
        if self.batches_per_epoch is None or position.samples < self.batches_per_epoch:
            return position
        return replace(position, epoch=position.epoch + 1, samples=0)


class Evaluation(Protocol):
    """Validation data that can be gone through any number of times."""

    batches: int | None

    def __iter__(self) -> Generator[Any]: ...


class Batches(Protocol):
    """Training batches on the device, without end, until they are closed."""

    def __next__(self) -> Any: ...
    def close(self) -> None: ...


class NoBatches:
    """What a run has before its data is opened."""

    def __next__(self) -> Any:
        raise StopIteration

    def close(self) -> None:
        pass


UNSPLIT = 2**31
"""The micro-batch of a run whose batches stay whole, however many samples a loader puts into one."""


@dataclass
class RunState:
    """One run. `step` is what is called (DDP or the loss step itself), `loss_step` is what is compiled."""

    task: Task[Any]
    config: TrainConfig
    plan: Plan
    paths: RunPaths
    world: World
    device: torch.device
    state: TrainState
    hooks: Hooks
    loss_step: LossStep
    step: nn.Module
    autocast: AutocastFactory
    order: Order
    total_steps: int
    evaluation: Evaluation | None
    signals: Signals
    requests: StopConsensus
    writer: CheckpointWriter
    recorder: Recorder
    meter: Meter
    watch: FiniteWatch
    profiler: Profiler
    switches: SwitchWatch
    micro_batch: int
    flops_per_sample: float | None = None
    peak_flops: float | None = None
    batches: Batches = field(default_factory=NoBatches)
    climb: Climb | None = None
    graph: WholeStepGraph | None = None
    launch_meter: LaunchMeter | None = None
    remakes: int = 0  # times that what hooks switched made DDP, compiled code or a graph be made anew
    recompiles: CompilerCounts | None = None  # from the end of warm-up on
    shapes: CompiledShapes = field(default_factory=CompiledShapes)
    infinite_by_design: frozenset[str] = frozenset()  # tensors that were so from the start, such as a mask of -inf

    @property
    def position(self) -> Position:
        return self.state.position

    @property
    def is_done(self) -> bool:
        return self.position.step >= self.total_steps or bool(self.state.ended) or self.state.monitor.is_exhausted

    def close(self) -> None:
        """End loader processes, and write out what is still on its way.

        Raises:
            StorageError: the logs volume is full.
        """
        with ExitStack() as last:
            last.callback(self.writer.close)
            last.callback(self.recorder.close)
            last.callback(self.profiler.close)
            last.callback(self.batches.close)

    @property
    def is_compiled(self) -> bool:
        return self.climb is not None and self.climb.rung != "eager"
