"""The same training by four loops: by hand, by the runner, by Accelerate, by Lightning Fabric.

Each contestant trains the small classifier for a number of steps and returns the moments at which it asked
for a batch: the time between the first and the last moment is its loop and nothing else.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from small_classifier import Shapes, ShapesConfig, SmallNet, draw_shapes

BATCH = 64
LOG_EVERY = 10
WIDTH = 12
DATA = draw_shapes(4096, seed=1)


class Moments:
    """Passes batches on and notes when each was asked for, in wall-clock and CPU seconds."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __iter__(self) -> "Moments":
        return self

    def __next__(self) -> Any:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        return next(self._batches)


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def parts() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    torch.manual_seed(0)
    model = SmallNet(WIDTH).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    return model, optimizer, DataLoader(DATA, BATCH, shuffle=True, drop_last=True)


def loss_of(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = batch
    logits = model(images.contiguous(memory_format=torch.channels_last))
    return nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()


def by_hand(steps: int) -> Moments:
    """What a careful user writes, with the same reports: a line of numbers every ten steps."""
    model, optimizer, loader = parts()
    moments, total, right = Moments(endless(loader)), torch.zeros(()), torch.zeros(())
    for step in range(1, steps + 1):
        loss, accuracy = loss_of(model, next(moments))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        right += accuracy
        if not torch.isfinite(loss):
            raise FloatingPointError(step)
        if step % LOG_EVERY == 0:
            print(step, float(total) / LOG_EVERY, float(right) / LOG_EVERY, file=sys.stderr)
            total.zero_()
            right.zero_()
    return moments


class Job(Shapes):
    """The runner's task, on the same data, without a schedule."""

    def data(self, cfg: ShapesConfig, split: str) -> Dataset[Any] | None:  # noqa: ARG002 - part of the contract
        return DATA if split == "train" else None

    def schedule(self, optimizer: torch.optim.Optimizer, cfg: ShapesConfig, total_steps: int) -> None:  # noqa: ARG002 - part of the contract
        return None


def by_runner(steps: int) -> Moments:
    from devgw_runner.build import assemble
    from devgw_runner.loop import train
    from devgw_runner.parallel.world import World
    from devgw_runner.paths import find_paths, prepare_paths
    from devgw_runner.probe import prepare
    from devgw_runner.signals import Signals

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        config = ShapesConfig(
            steps=steps, batch_size=BATCH, width=WIDTH, compile="off", workers=0, log_every=LOG_EVERY,
            checkpoint_minutes=0, checkpoint_dir=root / "c", log_dir=root / "l", cache_dir=root / "k",
        )  # fmt: skip
        paths = find_paths(config, "bench")
        prepare_paths(paths)
        run, warm = assemble(prepare(Job(), config, paths, World(), torch.device("cpu")), Signals())
        moments = Moments(run.batches)
        run.batches = moments
        train(run, warm)
        run.recorder.close()
        return moments


def by_accelerate(steps: int) -> Moments:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(*parts())
    moments = Moments(endless(loader))
    for step in range(1, steps + 1):
        loss, _ = loss_of(model, next(moments))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if step % LOG_EVERY == 0:
            print(step, loss.item(), file=sys.stderr)
    return moments


def by_fabric(steps: int) -> Moments:
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    plain, plain_optimizer, plain_loader = parts()
    model, optimizer = fabric.setup(plain, plain_optimizer)
    moments = Moments(endless(fabric.setup_dataloaders(plain_loader)))
    for step in range(1, steps + 1):
        loss, _ = loss_of(model, next(moments))
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if step % LOG_EVERY == 0:
            print(step, loss.item(), file=sys.stderr)
    return moments


CONTESTANTS = {"by hand": by_hand, "runner": by_runner, "accelerate": by_accelerate, "fabric": by_fabric}
