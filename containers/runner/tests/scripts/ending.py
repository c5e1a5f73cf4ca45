"""Runs that end badly while loader processes live, chosen by environment variables.

RAISES=loss|data|model|metrics|nothing   where the tenth call raises
LOADER=runner|own|persistent|generator   who starts the loader processes
DEAF=1                                   loader processes hang at sample 200, without end
STUCK=1                                  in rank 0, the 41st sample that a process fetches never comes
"""

import os
import threading
from pathlib import Path

import torch
from devgw_runner import Task, run
from torch import nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

RAISES = os.environ.get("RAISES", "nothing")
LOADER = os.environ.get("LOADER", "runner")
RANK = os.environ.get("RANK", "0")


class Numbers(Dataset):
    fetched = 0

    def __len__(self):
        return 256

    def __getitem__(self, index):
        if RAISES == "data" and index == 77 and get_worker_info():
            raise RuntimeError("corrupt JPEG 77")
        if os.environ.get("DEAF") and index == 200 and get_worker_info():
            threading.Event().wait()
        Numbers.fetched += 1
        if os.environ.get("STUCK") and Numbers.fetched > 40 and RANK == "0":
            Path("stuck").touch()
            threading.Event().wait()
        return torch.ones(6), torch.zeros(1)


class Ending(Task):
    calls = 0

    def model(self, cfg):
        return nn.Linear(6, 1)

    def loss(self, model, batch):
        if model.training:
            self.calls += 1
            if RAISES == "loss" and self.calls == 10 and os.environ.get("RAISING_RANK", "0") == RANK:
                raise ValueError("a bug of one's own")
        elif RAISES == "metrics":
            raise ValueError("a bug of one's own")
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def data(self, cfg, split):
        if split == "val" and RAISES != "metrics":
            return None
        if LOADER == "runner":
            return Numbers()
        loader = DataLoader(Numbers(), batch_size=8, num_workers=2, persistent_workers=LOADER == "persistent")
        return Wrapped(loader) if LOADER == "generator" else loader


class Wrapped:
    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        yield from self.loader


if __name__ == "__main__":
    run(Ending)
