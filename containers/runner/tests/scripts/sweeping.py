"""A task for sweeps: its loss after N evaluations follows from its settings, so that the best of them is known.

The loss is (log10(rate) + 2)² + width / 1000 and falls a little at each evaluation. FAIL=nan|bug lets the trials
of a large width end so; PAUSE is the seconds that a step takes.
"""

import math
import os
import time
from pathlib import Path

import torch
from devgw_runner import LossOut, Task, TrainConfig, run
from torch import nn
from torch.utils.data import TensorDataset


class SweepingConfig(TrainConfig):
    batch_size: int = 4
    steps: int = 4
    eval_every: int = 1
    log_every: int = 1
    compile: str = "off"
    prometheus: str = "off"
    csv: bool = False
    workers: int = 0
    rate: float = 0.1
    width: int = 16
    shift: bool = False
    kind: str = "a"


class Sweeping(Task):
    config = SweepingConfig

    def model(self, cfg):
        self.cfg = cfg
        self.seen = 0
        return nn.Linear(2, 1)

    def loss(self, model, batch):
        known = (math.log10(self.cfg.rate) + 2) ** 2 + self.cfg.width / 1000 + (1.0 if self.cfg.shift else 0.0)
        if model.training:
            self._go_wrong()
            known *= math.nan if os.environ.get("FAIL") == "nan" and self.cfg.width > 50 else 1.0
        value = model(batch[0]).sum() * 0.0 + known
        return LossOut(value, {"score": -value.detach()})

    def data(self, cfg, split):
        return TensorDataset(torch.zeros(64 if split == "train" else 4, 2))

    def on_step_end(self, ctx):
        self.seen += 1
        time.sleep(float(os.environ.get("PAUSE", "0")))

    def _go_wrong(self) -> None:
        is_bug = os.environ.get("FAIL") == "bug" and self.seen >= 1
        if is_bug and self.cfg.width > 50 and not Path("mended").exists():
            raise ValueError("my own bug")


if __name__ == "__main__":
    run(Sweeping)
