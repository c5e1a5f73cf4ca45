"""Optimizers that cannot step on sharded parameters. KIND=fused: torch's SGD; KIND=own: one that is not torch's."""

import os

import torch
from blocks import Blocks
from devgw_runner import run


class Own(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.ones(parameter.shape), alpha=-group["lr"])


class Unshardable(Blocks):
    def optimizer(self, params, cfg):
        return Own(params) if os.environ["KIND"] == "own" else torch.optim.SGD(params, lr=0.1, fused=True)


if __name__ == "__main__":
    run(Unshardable)
