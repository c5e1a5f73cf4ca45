"""Two processes whose task state differs by rank: each must get its own back."""

import json
from pathlib import Path

import torch
from blocks import Blocks
from devgw_runner import run


class Ranked(Blocks):
    def setup(self, ctx):
        self.number, self.tensor = 0.0, torch.zeros(1)

    def on_step_end(self, ctx):
        self.number += 10.0**ctx.rank
        self.tensor += 10.0**ctx.rank

    def on_train_end(self, ctx):
        Path(f"rank-{ctx.rank}.json").write_text(json.dumps([self.number, self.tensor.item()]))

    def state_dict(self):
        return {"number": self.number, "tensor": self.tensor}

    def load_state_dict(self, state):
        self.number, self.tensor = state["number"], state["tensor"]


if __name__ == "__main__":
    run(Ranked)
