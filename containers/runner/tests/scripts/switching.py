"""A stack whose first layer and last block are frozen when it is built; hooks thaw and freeze while it trains.

SWITCH   what is done after the third step: thaw (both), freeze (the second block), rest (the batch norm), evaluation
         (thaw the head after an evaluation), within (thaw in the loss itself), dtype (thaw what is of another dtype),
         everything (freeze all), group (give the optimizer a group), often (freeze and thaw at each step)
ONE=1    in the first process alone
HELD=no  the optimizer has only what was trainable when it was made
SAY=DIR  write each process's weights there at the end
"""

import os
from pathlib import Path

import torch
from blocks import Blocks, BlocksConfig, Stack
from devgw_runner import run
from torch import nn

SWITCH = os.environ.get("SWITCH", "thaw")
AT = 3


class Switched(Stack):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16) if SWITCH == "rest" else nn.Identity()
        if SWITCH == "dtype":
            self.gain = nn.Parameter(torch.ones(16, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        hidden = self.norm(self.first(x))
        if SWITCH == "dtype":
            hidden = hidden * self.gain.float()
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.head(hidden)


class SwitchingConfig(BlocksConfig):
    log_every: int = 1
    eval_every: int = AT


class Switching(Blocks):
    config = SwitchingConfig

    def __init__(self) -> None:
        self.steps = 0

    def model(self, cfg):
        model = Switched()
        model.first.requires_grad_(False)
        model.blocks[2].requires_grad_(False)
        if SWITCH == "evaluation":
            model.head.requires_grad_(False)
        return model

    def optimizers(self, model, cfg):
        held = model.parameters() if os.environ.get("HELD") != "no" else filter(trains, model.parameters())
        # With AdamW's own eps a gradient near 0 would make whole steps of what is rounding alone.
        return torch.optim.AdamW(held, lr=0.02, weight_decay=0.1, eps=1e-3, foreach=True)

    def loss(self, model, batch):
        if SWITCH == "within" and model.training and self.steps == AT:
            model.first.requires_grad_(True)
        return super().loss(model, batch)

    def on_step_end(self, ctx):
        self.steps = ctx.step
        if os.environ.get("ONE") and ctx.rank > 0:
            return
        if ctx.step == AT:
            self.switch(ctx)
        if SWITCH == "often":
            ctx.model.blocks[0].requires_grad_(bool(ctx.step % 2))

    def switch(self, ctx):
        if SWITCH == "dtype":
            ctx.model.gain.requires_grad_(True)
        if SWITCH == "thaw":
            ctx.model.first.requires_grad_(True)
            ctx.model.blocks[2].requires_grad_(True)
        if SWITCH == "freeze":
            ctx.model.blocks[1].requires_grad_(False)
        if SWITCH == "rest":
            ctx.model.norm.eval()
        if SWITCH == "everything":
            ctx.model.requires_grad_(False)
        if SWITCH == "group":
            ctx.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})

    def on_evaluation_end(self, ctx, means):
        if SWITCH == "evaluation" and ctx.step == AT and not (os.environ.get("ONE") and ctx.rank > 0):
            ctx.model.head.requires_grad_(True)

    def on_train_end(self, ctx):
        if where := os.environ.get("SAY"):
            whole = {name: getattr(value, "full_tensor", lambda value=value: value)() for name, value in weights(ctx)}
            torch.save(whole, Path(where) / f"rank-{ctx.rank}.pt")


def weights(ctx):
    return ctx.model.state_dict().items()


def trains(parameter):
    return parameter.requires_grad


if __name__ == "__main__":
    run(Switching)
