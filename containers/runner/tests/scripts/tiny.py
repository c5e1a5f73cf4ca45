"""A small task with everything that can break an exact resume.

Dropout, batch norm, momentum, a schedule, augmentation with three generators. It signals itself at
chosen points, given by environment variables:

    SIGNAL_AT=train:7:KILL    in the loss of the 7th training step of this process
    SIGNAL_AT=eval:2:TERM     in the loss of the 2nd evaluation batch of this process
    PLAN=…/plan.json          counting starts when this file is there
"""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from devgw_runner import LossOut, Task, TrainConfig, run
from torch import nn
from torch.utils.data import Dataset

FEATURES, CLASSES = 12, 3


class Points(Dataset):
    """Random points on a plane, jittered by Python's, NumPy's and torch's generators at each access."""

    def __init__(self, count: int, seed: int, jitter: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(CLASSES, (count,), generator=generator)
        self.points = torch.randn(count, FEATURES, generator=generator) + self.labels.unsqueeze(1)
        self.jitter = jitter

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        noise = random.gauss(0, 1) + float(np.random.randn()) + float(torch.randn(()))  # noqa: NPY002 - the global generator is what is tested
        return self.points[index] + self.jitter * noise, self.labels[index]


class TinyConfig(TrainConfig):
    batch_size: int = 8
    samples: int = 64
    width: int = 16
    compile: str = "off"
    progress_seconds: float = 0.01
    prometheus: str = "off"
    csv: bool = False


class Tiny(Task):
    config = TinyConfig

    def __init__(self) -> None:
        where, self._at, name = (os.environ.get("SIGNAL_AT") or "never:0:TERM").split(":")
        self._signal = getattr(signal, f"SIG{name}")
        self._where = where
        self._seen = 0

    def model(self, cfg):
        return nn.Sequential(
            nn.Linear(FEATURES, cfg.width),
            nn.BatchNorm1d(cfg.width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(cfg.width, CLASSES),
        )

    def loss(self, model, batch):
        points, labels = batch
        if self._where != "never":
            self._count(model)
        logits = model(points)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return LossOut(nn.functional.cross_entropy(logits, labels), {"accuracy": accuracy})

    def data(self, cfg, split):
        return Points(cfg.samples, 1, 0.1) if split == "train" else Points(20, 2, 0.0)

    def optimizer(self, params, cfg):
        return torch.optim.SGD(params, lr=0.05, momentum=0.9)

    def schedule(self, optimizer, cfg, total_steps):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)

    def _count(self, model) -> None:
        # The runner's look at a first batch comes before the plan is written, and does not count.
        mode = "train" if model.training else "eval"
        if mode == self._where and Path(os.environ["PLAN"]).exists():
            self._seen += 1
        else:
            return
        if self._seen == int(self._at):
            os.kill(os.getpid(), self._signal)


if __name__ == "__main__":
    run(Tiny)
