"""A stack of blocks for DDP and FSDP2, without dropout or augmentation, so that worlds can be compared."""

import torch
from devgw_runner import Task, TrainConfig, run
from torch import nn
from torch.utils.data import TensorDataset


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class BlocksConfig(TrainConfig):
    batch_size: int = 8
    compile: str = "off"
    deterministic: bool = True


class Blocks(Task):
    config = BlocksConfig

    def model(self, cfg):
        return Stack()

    def loss(self, model, batch):
        inputs, targets = batch
        return nn.functional.mse_loss(model(inputs), targets)

    def data(self, cfg, split):
        generator = torch.Generator().manual_seed(4 if split == "train" else 5)
        inputs = torch.randn(64 if split == "train" else 22, 8, generator=generator)
        return TensorDataset(inputs, inputs.sum(1, keepdim=True))


if __name__ == "__main__":
    run(Blocks)
