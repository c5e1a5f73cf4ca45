"""A task that keeps things beside the model: an average, a teacher's head, counters; and hooks that count themselves.

SIGNAL_AT and PLAN as in `tiny`.
"""

import copy
from collections import Counter

import tiny
import torch
from devgw_runner import run
from torch import nn

KEPT = 0.9


class Keeping(tiny.Tiny):
    """An exponential average evaluates; a teacher that is drawn at random pulls on the loss."""

    def setup(self, ctx):
        self.counts = Counter()
        self.average = copy.deepcopy(ctx.model).requires_grad_(False)
        self.teacher = nn.Linear(tiny.FEATURES, tiny.CLASSES).requires_grad_(False)
        self.history = []
        self.grid = torch.arange(6.0).reshape(2, 3).t()  # a layout that is not contiguous

    def loss(self, model, batch):
        out = super().loss(model, batch)
        if not hasattr(self, "teacher"):
            return out
        pull = nn.functional.mse_loss(model(batch[0]), self.teacher(batch[0]))
        return out._replace(loss=out.loss + 0.1 * pull)

    def on_train_start(self, ctx):
        self.counts["train_start"] += 1

    def on_before_optimizer_step(self, ctx):
        self.counts["before_step"] += 1
        for parameter in ctx.model.parameters():
            parameter.grad.clamp_(-0.5, 0.5)

    def on_step_end(self, ctx):
        self.counts["step_end"] += 1
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), ctx.model.parameters(), strict=True):
                kept.lerp_(new, 1 - KEPT)
            for kept, new in zip(self.average.buffers(), ctx.model.buffers(), strict=True):
                kept.copy_(new)
        self.grid += torch.rand(3, 2)

    def on_epoch_end(self, ctx):
        self.counts["epoch_end"] += 1
        nn.init.normal_(self.teacher.weight)

    def on_evaluation_end(self, ctx, means):
        self.history.append((ctx.step, means["loss"]))

    def evaluation_model(self, model):
        return self.average

    def state_dict(self):
        return {
            "average": self.average.state_dict(),
            "teacher": self.teacher.state_dict(),
            "grid": self.grid,
            "counts": dict(self.counts),
            "history": self.history,
            "nested": ({1: [torch.tensor(3), None, "word"]},),
        }

    def load_state_dict(self, state):
        self.average.load_state_dict(state["average"])
        self.teacher.load_state_dict(state["teacher"])
        self.grid = state["grid"]
        self.counts = Counter(state["counts"])
        self.history = list(state["history"])
        assert state["nested"][0][1][0].item() == 3
        assert state["nested"][0][1][1:] == [None, "word"]


if __name__ == "__main__":
    run(Keeping)
