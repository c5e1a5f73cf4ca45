"""Blocks that keep an average, as the how-to's page has it: KEEP is copy, whole or shards.

What is kept is shown as one number where a checkpoint gives it back and at the end.
"""

import os
import re
from pathlib import Path

from blocks import Blocks
from devgw_runner import run
from torch.distributed.tensor import DTensor

PAGE = Path(__file__).parents[4] / "docs" / "howto" / "keep-an-average.md"
COPY, WHOLE = (
    block.replace("(Task)", "(Blocks)")
    for block in re.findall(r"^```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)


def first(kept) -> float:
    value = next(iter(kept.values()))
    return float((value.full_tensor() if isinstance(value, DTensor) else value).double().sum())


class Shards(Blocks):
    def setup(self, ctx):
        self.average = {name: value.detach().clone() for name, value in ctx.model.named_parameters()}

    def on_step_end(self, ctx):
        for name, value in ctx.model.named_parameters():
            self.average[name].lerp_(value.detach(), 0.5)

    def state_dict(self):
        return {"average": self.average}

    def load_state_dict(self, state):
        for name, value in state["average"].items():
            self.average[name].copy_(value)


def kept_by(keep: str) -> type[Blocks]:
    names = {"Blocks": Blocks}
    if keep == "shards":
        return Shards
    exec(compile(COPY, PAGE, "exec"), names)  # noqa: S102 - the page's own text
    if keep == "whole":
        names["Copied"] = names["Averaged"]
        exec(compile(WHOLE.replace("(Blocks)", "(Copied)"), PAGE, "exec"), names)  # noqa: S102
    return names["Averaged"]


class Shown(kept_by(os.environ.get("KEEP", "copy"))):
    def kept(self) -> dict:
        return self.average if isinstance(self.average, dict) else self.average.state_dict()

    def load_state_dict(self, state):
        super().load_state_dict(state)
        print(f"given back {first(self.kept()):.9f}")

    def on_train_end(self, ctx):
        print(f"kept {first(self.kept()):.9f}")


if __name__ == "__main__":
    run(Shown)
