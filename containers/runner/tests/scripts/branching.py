"""A model of which a branch takes part by turns: by the batch, so each process goes its own way.

BRANCH=one-process: it takes part in the first process alone.
"""

import os

import torch
from blocks import Blocks, BlocksConfig
from devgw_runner import run
from torch import nn

BRANCH = os.environ.get("BRANCH", "by-turns")
USED = {
    "by-turns": lambda x: float(x.sum()) > 0,
    "one-process": lambda x: os.environ.get("RANK") == "0",
}


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.branch = nn.Linear(16, 16)
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        if USED[BRANCH](x):
            hidden = hidden + self.branch(hidden)
        return self.head(hidden)


class BranchingConfig(BlocksConfig):
    batch_size: int = 4
    log_every: int = 1
    eval_every: int = 100


class Branches(Blocks):
    config = BranchingConfig

    def model(self, cfg):
        return Branching()


if __name__ == "__main__":
    run(Branches)
