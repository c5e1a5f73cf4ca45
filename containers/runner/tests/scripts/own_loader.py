"""A loader of the task's own in several processes: dealt out by a DistributedSampler, by itself, or not at all."""

import json
import os
from pathlib import Path

import torch
from blocks import Blocks
from devgw_runner import run
from torch.utils.data import DataLoader, DistributedSampler

HOW = os.environ.get("HOW", "")


class Own(Blocks):
    def setup(self, ctx):
        self.seen = []

    def loss(self, model, batch):
        if model.training and hasattr(self, "seen"):
            self.seen += batch[0][:, 0].tolist()
        return super().loss(model, batch)

    def on_train_end(self, ctx):
        Path(f"seen-{ctx.rank}.json").write_text(json.dumps(self.seen))

    def data(self, cfg, split):
        data = super().data(cfg, split)
        if split == "val":
            return DataLoader(data, batch_size=8)
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if HOW == "sampler":
            return DataLoader(data, batch_size=8, sampler=DistributedSampler(data, size, rank, seed=3))
        if HOW == "itself":
            loader = DataLoader(torch.utils.data.Subset(data, range(rank, len(data), size)), batch_size=8)
            loader.shards_by_rank = True
            return loader
        return DataLoader(data, batch_size=8)


if __name__ == "__main__":
    run(Own)
