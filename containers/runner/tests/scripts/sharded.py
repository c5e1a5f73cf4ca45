"""A stack of blocks that notes, at each call of its loss, whether the model was whole and what came out of it.

META=1       the model is built on the meta device
RESET=no     one of its modules cannot initialise itself
TIED=1       two of its weights are one tensor
"""

import os
from pathlib import Path

import torch
from blocks import Blocks, Stack
from devgw_runner import run
from torch import nn
from torch.distributed.tensor import DTensor


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class Sharded(Blocks):
    def model(self, cfg):
        with torch.device("meta" if os.environ.get("META") else "cpu"):
            model = Stack()
            if os.environ.get("RESET") == "no":
                model.bare = Bare()
            if os.environ.get("TIED"):
                model.blocks[1][0].weight = model.blocks[0][0].weight
            return model

    def loss(self, model, batch):
        inputs, targets = batch
        shards = all(isinstance(parameter, DTensor) for parameter in model.blocks.parameters())
        predicted = model(inputs)
        with Path(f"calls-{os.environ.get('RANK', '0')}").open("a") as notes:
            notes.write(f"{'sharded' if shards else 'whole'} {predicted.dtype}\n")
        return nn.functional.mse_loss(predicted.float(), targets)


if __name__ == "__main__":
    run(Sharded)
