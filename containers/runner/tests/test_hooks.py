"""Hooks are called when they say, and what a task keeps beside the model comes back bit for bit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from devgw_runner import run
from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.encoding import decode
from devgw_runner.plan.numerics import choose_graphs
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from conftest import SCRIPTS
from test_plan import facts

KEEPING = SCRIPTS / "keeping.py"
STEPS = 24  # three epochs of eight steps
FLAGS = ("--deterministic", "--steps", str(STEPS), "--log-every", "1", "--checkpoint-every", "5", "--run-name")


def everything(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Every tensor of a checkpoint, and what its trainer's file says of the task."""
    reader = FileSystemReader(checkpoint)
    target = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(target, storage_reader=reader, no_dist=True)
    trainer = torch.load(checkpoint / "trainer-0.pt", weights_only=True)
    return target, {"task": decode(trainer["task"], target), "layouts": trainer["layouts"]}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The same run, never disturbed; made once."""
    root = tmp_path_factory.mktemp("whole")
    directories = {"DEVGW_TRAIN_CHECKPOINT_DIR": f"{root}/checkpoints", "DEVGW_TRAIN_LOG_DIR": f"{root}/logs"}
    line = [sys.executable, "-m", "devgw_runner", str(KEEPING), *FLAGS, "whole"]
    subprocess.run(line, check=True, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1", **directories}, timeout=300)
    return root / "checkpoints" / "whole" / f"step-{STEPS:08d}"


@pytest.fixture
def whole(whole_run):
    return everything(whole_run)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["train:11:KILL", "eval:4:TERM", "train:17:TERM"])
def test_a_tasks_state_resumes_bit_for_bit(finished, tmp_path, whole, at):
    """Average, teacher, counters and history, wherever the run was interrupted; layouts too."""
    plan = str(tmp_path / "logs" / "cut" / "plan.json")
    assert finished(KEEPING, *FLAGS, "cut", SIGNAL_AT=at, PLAN=plan).returncode in {143, -9}
    again = finished(KEEPING, *FLAGS, "cut")
    assert again.returncode == 0, again.stderr
    tensors, trainer = everything(tmp_path / "checkpoints" / "cut" / f"step-{STEPS:08d}")
    expected, expected_trainer = whole
    assert tensors.keys() == expected.keys()
    assert sum(name.startswith("task.0.") for name in tensors) > 10
    for name, value in expected.items():
        assert torch.equal(tensors[name], value), name
    # How often a process began is the one thing that an interruption changes.
    one, other = trainer["task"], expected_trainer["task"]
    assert one["counts"] | {"train_start": 1} == other["counts"]
    assert one["history"] == other["history"]
    assert trainer["layouts"]["task.0.grid"]["stride"] == [1, 3]


@pytest.mark.slow
def test_each_hook_is_called_as_often_as_it_says(whole):
    """Three epochs of eight steps, an evaluation after each."""
    _, trainer = whole
    counts = trainer["task"]["counts"]
    assert counts == {"train_start": 1, "before_step": STEPS, "step_end": STEPS, "epoch_end": 3}
    assert [step for step, _ in trainer["task"]["history"]] == [8, 16, 24]


@pytest.mark.slow
def test_each_process_keeps_its_own_state(finished, tmp_path):
    """Two processes whose counters differ; a resume gives each its own back, a third process the first's."""
    script = SCRIPTS / "ranks.py"
    flags = ("--run-name", "ranks", "--device", "cpu")
    assert finished("--nproc", "2", script, "--steps", "3", *flags).returncode == 0
    again = finished("--nproc", "2", script, "--steps", "5", *flags)
    assert again.returncode == 0, again.stderr
    seen = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert seen == [[5.0, 5.0], [50.0, 50.0]]


class Ending(tiny.Tiny):
    """Ends itself after its fifth step."""

    def on_step_end(self, ctx):
        if ctx.step == 5:
            ctx.stop("five are enough")


def test_a_hook_ends_the_run_with_a_checkpoint_an_evaluation_and_code_0(paths, capsys):
    flags = ["--run-name", "tiny", "--steps", "16"]
    assert run(Ending, flags) == 0
    assert paths.steps() == [5]
    assert [record["step"] for record in paths.records("val")] == [5]
    assert "ended by the task (five are enough) at step 5" in paths.events("done")[0]["text"]
    # Started again, a run that ended so does nothing more.
    assert run(Ending, flags) == 0
    assert "nothing to do" in paths.events("done")[-1]["text"]
    assert paths.steps() == [5]


class Refused(tiny.Tiny):
    def state_dict(self):
        return {"model": {"inner": object()}}


def test_state_that_cannot_be_saved_is_told_before_the_first_step(paths, capsys):
    assert run(Refused, ["--run-name", "tiny", "--steps", "4"]) == 10
    assert "the state of the task Refused holds a object at model.inner" in capsys.readouterr().err
    assert paths.records() == []


class Scheming(tiny.Tiny):
    """The hook's gradients are the true ones, before the update."""

    def on_before_optimizer_step(self, ctx):
        for parameter in ctx.model.parameters():
            parameter.grad.zero_()


def test_a_hook_that_changes_gradients_changes_the_update(paths):
    assert run(Scheming, ["--run-name", "tiny", "--steps", "3", "--checkpoint-every", "1"]) == 0
    first, last = (store.step_directory(paths.checkpoints, step) for step in (1, 3))
    before, after = everything(first)[0], everything(last)[0]
    assert torch.equal(before["model.0.weight"], after["model.0.weight"])


def test_graphs_are_off_for_a_task_that_looks_at_gradients():
    assert choose_graphs(tiny.TinyConfig(), facts(), "bf16", "single", accumulates=False).value == "auto"
    watched = replace(facts(), has_gradient_hook=True)
    choice = choose_graphs(tiny.TinyConfig(), watched, "bf16", "single", accumulates=False)
    assert choice.value == "off"
    assert "gradients on the host" in choice.reason


class Constant(torch.nn.Module):
    """Whatever comes in, class 0 with all certainty: its loss is known beforehand."""

    def forward(self, inputs):
        return torch.tensor([[1e4, 0.0, 0.0]]).expand(len(inputs), 3)


class Averaged(tiny.Tiny):
    """Evaluations see another model than the one that is trained."""

    def evaluation_model(self, model):
        return Constant()

    def loss(self, model, batch):
        out = super().loss(model, batch)
        return out if model.training or not isinstance(model, Constant) else torch.full((), 77.0)


def test_an_evaluation_sees_the_model_that_the_task_names(paths):
    assert run(Averaged, ["--run-name", "tiny", "--steps", "8", "--compile", "off"]) == 0
    assert [record["loss"] for record in paths.records("val")] == [77.0]
