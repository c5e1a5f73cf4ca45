"""Parameters without a part in a step, under DDP: allowed by a flag, and without it told by name."""

import re

import pytest
import torch
from devgw_runner.checkpoint.export import read_weights

from bits import differences
from conftest import SCRIPTS, RunPaths

TWO = ("--nproc", "2", SCRIPTS / "branching.py", "--parallel", "ddp")
STEPS = 12


def line(name: str, steps: int, *flags: str) -> tuple:
    return (*TWO, "--run-name", name, "--steps", str(steps), "--checkpoint-every", "3", *flags)


@pytest.mark.slow
def test_a_branch_that_is_used_by_turns_trains_and_resumes_to_the_same_bits(finished, tmp_path):
    """In some steps in one process, in some in both, in some in none."""
    allowed = ("--find-unused-parameters",)
    assert finished(*line("whole", STEPS, *allowed)).returncode == 0
    for steps in (5, STEPS):
        done = finished(*line("cut", steps, *allowed))
        assert done.returncode == 0, done.stderr
    one, other = (RunPaths(tmp_path, name).checkpoints / f"step-{STEPS:08d}" for name in ("whole", "cut"))
    assert not differences(one, other)


@pytest.mark.slow
def test_two_processes_with_a_branch_by_turns_compute_what_one_computes(finished, tmp_path):
    """One sample to a part, so that both split the batch alike: a branch used in one part only counts for all."""
    steps = ("--steps", "6", "--micro-batch", "1")
    alone = finished(SCRIPTS / "branching.py", "--run-name", "one", "--batch-size", "8", *steps)
    assert alone.returncode == 0, alone.stderr
    both = finished(*TWO, "--run-name", "two", "--batch-size", "4", "--find-unused-parameters", *steps)
    assert both.returncode == 0, both.stderr
    one, two = (read_weights(RunPaths(tmp_path, name).checkpoints / "step-00000006") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
def test_a_parameter_without_a_gradient_is_told_by_name_with_the_flag_that_allows_it(finished, tmp_path):
    """At the step itself: torch tells it a step later, by a number, after it averaged only some of the gradients."""
    done = finished(*line("refused", STEPS), BRANCH="one-process")
    assert done.returncode == 10, done.stderr
    assert re.search(r"error: branch\.weight \(and 1 more\) got no gradient in this step", done.stderr)
    assert "hint: --find-unused-parameters allows it" in done.stderr
    assert "Traceback" not in done.stderr
    assert "another process" not in done.stderr  # the one that waited for the gradient lets the other tell it
    assert RunPaths(tmp_path, "refused").records() == []
