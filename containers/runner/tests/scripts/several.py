"""Tasks with several optimizers: chosen by name (Muon for matrices, AdamW for the rest), and taking turns (a GAN)."""

import os
import signal

import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from devgw_runner import Task, TrainConfig, run
from torch import nn
from torch.utils.data import TensorDataset


class SeveralConfig(TrainConfig):
    batch_size: int = 8
    compile: str = "off"
    deterministic: bool = True
    log_every: int = 1
    csv: bool = False
    prometheus: str = "off"


class ByName(Task):
    """Muon takes the hidden matrices, AdamW all else; each has a schedule of its own kind."""

    config = SeveralConfig

    def model(self, cfg):
        return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 1))

    def loss(self, model, batch):
        return F.mse_loss(model(batch[0]), batch[1])

    def data(self, cfg, split):
        points = torch.randn(64, 6, generator=torch.Generator().manual_seed(3))
        return TensorDataset(points, points.sum(1, keepdim=True))

    def optimizers(self, model, cfg):
        named = dict(model.named_parameters())
        matrices = [p for p in named.values() if p.dim() == 2]
        others = [p for p in named.values() if p.dim() != 2]
        return {"muon": torch.optim.Muon(matrices, lr=0.02), "adamw": torch.optim.AdamW(others, lr=1e-2)}

    def schedule(self, optimizer, cfg, total_steps):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer["adamw"], factor=0.5, patience=0)
        return {"muon": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer["muon"], total_steps), "adamw": plateau}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


class Gan(Task):
    """The critic's turn, then the generator's; each optimizer moves its own half only."""

    config = SeveralConfig
    turns = ("critic", "generator")

    def model(self, cfg):
        return Pair()

    def data(self, cfg, split):
        points = torch.randn(64, 2, generator=torch.Generator().manual_seed(3)) * 0.3 + 1
        return TensorDataset(points) if split == "train" else None

    def turn_loss(self, turn, model, batch):
        (real,) = batch
        made = model.generator(torch.randn_like(real))
        if turn == "critic":
            scores = torch.cat([model.critic(real), model.critic(made.detach())])
            wanted = torch.cat([torch.ones(len(real), 1), torch.zeros(len(real), 1)])
            return F.binary_cross_entropy_with_logits(scores, wanted)
        return F.binary_cross_entropy_with_logits(model.critic(made), torch.ones(len(real), 1))

    def optimizers(self, model, cfg):
        return {
            "generator": torch.optim.Adam(model.generator.parameters(), lr=1e-3),
            "critic": torch.optim.SGD(model.critic.parameters(), lr=1e-2, momentum=0.9),
        }


def stopped(task: type[Task]) -> type[Task]:
    """The same task, which signals its own process after step STOP_AT."""
    at = int(os.environ.get("STOP_AT", "-1"))

    class Stopped(task):
        def on_step_end(self, ctx):
            if ctx.step == at < ctx.total_steps:
                os.kill(os.getpid(), signal.SIGTERM)

    return Stopped


if __name__ == "__main__":
    run(stopped({"by-name": ByName, "gan": Gan}[os.environ["TASK"]]))
