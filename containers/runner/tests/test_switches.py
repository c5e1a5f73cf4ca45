"""What hooks switch in the model while it trains comes back: frozen parameters, modules in evaluation mode."""

import os
import signal

import pytest
import tiny
import torch
from devgw_runner import run
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.switches import freeze_as_saved, frozen_parameters, resting_modules
from torch import nn

STEPS, STOP = 20, 12


class Switching(tiny.Tiny):
    """Switches something at step 3, or after each evaluation; interrupts itself at step `stop_at`."""

    what = "freeze"
    stop_at = 0
    rested: tuple[str, ...] = ()

    def on_step_end(self, ctx):
        if ctx.step == 3 and self.what == "freeze":
            ctx.model[0].requires_grad_(False)
        if ctx.step == 3 and self.what == "rest":
            ctx.model[1].eval()
        type(self).rested = tuple(resting_modules(ctx.model))
        if ctx.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_evaluation_end(self, ctx, means):
        if self.what == "rest after evaluation":
            ctx.model.eval()


def train(name: str, **changes) -> int:
    task = type("Switching", (Switching,), changes)
    code = run(task, ["--run-name", name, "--steps", str(STEPS)])
    Switching.rested = task.rested
    return code


@pytest.mark.parametrize("what", ["freeze", "rest", "rest after evaluation"])
def test_what_a_hook_switched_is_the_same_after_a_resume(what, tmp_path):
    assert train("whole", what=what) == 0
    assert train("halves", what=what, stop_at=STOP) == 143
    assert train("halves", what=what) == 0
    root, last = tmp_path / "checkpoints", f"step-{STEPS:08d}"
    whole, halves = read_weights(root / "whole" / last), read_weights(root / "halves" / last)
    for name, value in whole.items():
        assert torch.equal(halves[name], value), name


def test_an_evaluation_leaves_each_module_in_the_mode_it_had():
    """Batch norm that a hook put to rest at step 3 rests on after the evaluation of step 8."""
    assert train("rests", what="rest") == 0
    assert Switching.rested == ("1",)


def test_a_model_that_is_built_with_other_parameters_frozen_is_taken_as_it_is_built():
    """Who freezes a layer in the code and resumes wants just that; else what a hook thawed and froze comes back."""
    saved = {"frozen_at_start": ["0.bias"], "frozen": ["0.weight"], "resting": []}
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    freeze_as_saved(model, saved, frozen_at_start=["1.weight"])
    assert frozen_parameters(model) == []
    model[0].bias.requires_grad_(False)
    freeze_as_saved(model, saved, frozen_at_start=["0.bias"])
    assert frozen_parameters(model) == ["0.weight"]
    freeze_as_saved(model, {}, frozen_at_start=[])  # a checkpoint of an older runner says nothing
    assert frozen_parameters(model) == ["0.weight"]
