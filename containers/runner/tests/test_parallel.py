"""Several processes on one machine, over gloo: the same numbers, the same checkpoints, honest exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from devgw_runner.blocks import find_blocks
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.errors import ShardingError
from devgw_runner.parallel.sharding import check_sharding, find_refusals
from torch import nn

from bits import differences
from conftest import RunPaths

STEPS = 12


SCRIPT = Path(__file__).parent / "scripts" / "blocks.py"
FLAGS = ("--steps", str(STEPS), "--log-every", "1")


def weights(paths: RunPaths, step: int = STEPS) -> dict[str, torch.Tensor]:
    return read_weights(paths.checkpoints / f"step-{step:08d}")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunPaths]:
    """The same training by one process with batch 16, and by two with batch 8 each: DDP and FSDP2."""
    root = tmp_path_factory.mktemp("worlds")
    directories = {"DEVGW_TRAIN_CHECKPOINT_DIR": f"{root}/checkpoints", "DEVGW_TRAIN_LOG_DIR": f"{root}/logs"}
    lines = {
        "one": [str(SCRIPT), "--batch-size", "16"],
        "ddp": ["--nproc", "2", str(SCRIPT), "--parallel", "ddp"],
        "fsdp": ["--nproc", "2", str(SCRIPT), "--parallel", "fsdp"],
    }
    for name, line in lines.items():
        subprocess.run(
            [sys.executable, "-m", "devgw_runner", *line, *FLAGS, "--run-name", name],
            check=True,
            cwd=root,
            env={**os.environ, **directories},
            timeout=300,
        )
    return {name: RunPaths(root, name) for name in lines}


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_compute_what_one_with_twice_the_batch_computes(worlds, parallel):
    """Gradients are averaged over disjoint halves of the same batches."""
    expected, got = weights(worlds["one"]), weights(worlds[parallel])
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    losses = [record["loss"] for record in worlds["one"].records("val")]
    assert [record["loss"] for record in worlds[parallel].records("val")] == pytest.approx(losses, rel=1e-5)
    assert len(worlds[parallel].records()) == STEPS  # one process records, not both


@pytest.mark.slow
def test_sharded_checkpoints_resume_exactly_and_reshard_to_one_process(finished, worlds, tmp_path):
    """DTensor state goes through the checkpoint; another world reads it, and says it is not bit-exact."""
    fsdp = ("--nproc", "2", SCRIPT, "--run-name", "half", "--parallel", "fsdp", *FLAGS)
    assert finished(*fsdp, "--steps", "7").returncode == 0
    assert "resumed from step-00000007" in finished(*fsdp).stdout
    expected, got = weights(worlds["fsdp"]), weights(RunPaths(tmp_path, "half"))
    for name, value in expected.items():
        assert torch.equal(got[name], value), name
    alone = finished(SCRIPT, "--run-name", "half", "--steps", "14", "--batch-size", "16")
    assert alone.returncode == 0, alone.stderr
    assert "made by 2 processes, these are 1: not bit-exact" in alone.stdout


@pytest.mark.slow
def test_sigterm_stops_all_processes_at_the_same_step(devgw_run, poll, tmp_path):
    """Only one checkpoint, whole, and the exit code of the signal."""
    process = devgw_run("--nproc", "2", SCRIPT, "--run-name", "stopped", *FLAGS, "--steps", "1000000")
    paths = RunPaths(tmp_path, "stopped")
    poll(lambda: len(paths.records()) > 3, "training to begin")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert len(paths.steps()) == 1
    assert weights(paths, paths.steps()[0])


@pytest.mark.slow
def test_an_evaluation_made_up_after_a_resume_sees_each_process_s_own_statistics(finished, tmp_path):
    """DDP gives every process those of the first when it is made; a run that has begun must not lose its own so."""
    flags = ("--nproc", "2", SCRIPT.with_name("tiny.py"), "--parallel", "ddp", "--steps", "8", "--eval-every", "8")
    assert finished(*flags, "--run-name", "whole").returncode == 0
    cut = (*flags, "--run-name", "cut")
    plan = str(RunPaths(tmp_path, "cut").logs / "plan.json")
    assert finished(*cut, SIGNAL_AT="eval:1:TERM", PLAN=plan).returncode == 143
    assert RunPaths(tmp_path, "cut").records("val") == []
    assert finished(*cut).returncode == 0
    one, other = (RunPaths(tmp_path, name).checkpoints / "step-00000008" for name in ("whole", "cut"))
    assert not differences(one, other)
    losses = [RunPaths(tmp_path, name).records("val")[0]["loss"] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_three_processes_resume_to_the_same_bits(finished, tmp_path):
    """A sum of three depends on the order of its parts, and that on where DDP puts a gradient in its buckets."""
    flags = ("--nproc", "3", SCRIPT, "--parallel", "ddp")
    assert finished(*flags, "--run-name", "whole", "--steps", "12").returncode == 0
    for steps in ("5", "12"):
        assert finished(*flags, "--run-name", "cut", "--steps", steps).returncode == 0
    one, other = (RunPaths(tmp_path, name).checkpoints / "step-00000012" for name in ("whole", "cut"))
    assert not differences(one, other)


@pytest.mark.slow
def test_the_exit_code_of_a_failed_process_comes_through_torchrun(finished):
    """Alone, torchrun turns every code into 1."""
    assert finished("--nproc", "2", SCRIPT, "--checkpoint-dir", "/proc/devgw").returncode == 13


class Awkward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.half = nn.Linear(4, 4).to(torch.bfloat16)


def test_the_sharding_preflight_names_parameter_shape_stride_dtype_and_rule():
    """What torch leaves out of its own message."""
    refusals = {refusal.name: refusal for refusal in find_refusals(Awkward())}
    assert refusals["conv.weight"].shape == (4, 3, 3, 3)
    assert refusals["conv.weight"].stride == (27, 1, 9, 3)
    assert "contiguous" in refusals["conv.weight"].rule
    assert "scalar" in refusals["scale"].rule
    assert "one dtype" in refusals["half.weight"].rule
    assert "torch.bfloat16" in refusals["half.weight"].describe()
    model = nn.Sequential(Awkward().conv)
    with pytest.raises(ShardingError, match=r"0\.weight: shape \(4, 3, 3, 3\), stride \(27, 1, 9, 3\)"):
        check_sharding(model)


def test_a_plain_model_passes_the_sharding_preflight():
    check_sharding(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))


def test_blocks_are_the_members_of_module_lists():
    inner = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"layers": inner}))
    assert find_blocks(model) == list(inner)


@pytest.mark.slow
def test_the_preflight_refuses_just_the_optimizers_that_torch_cannot_step_on_shards(tmp_path):
    """Each of torch's optimizers in each implementation: the rehearsal's word, and what a real step does."""
    script = SCRIPT.with_name("sharded_optimizers.py")
    line = [sys.executable, "-m", "devgw_runner.parallel.launch", "--nproc", "2", "--", str(script)]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = json.loads((tmp_path / "sharded_optimizers.json").read_text())
    wrong = {name: words for name, words in verdicts.items() if bool(words[0]) != bool(words[1])}
    assert not wrong
    refused = {name for name, words in verdicts.items() if words[0]}
    assert "SGD-fused" in refused
    assert "AdamW-fused" not in refused  # the runner's own default must not be refused
    assert verdicts["SGD-fused"][0].startswith("SGD(fused=True) cannot step on sharded parameters: ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fused", "own"])
def test_an_optimizer_that_cannot_be_sharded_ends_the_run_in_one_line(finished, kind):
    """One of torch's before anything is compiled; one of the user's own at its first step."""
    done = finished("--nproc", "2", SCRIPT.with_name("unshardable.py"), "--parallel", "fsdp", "--steps", "2", KIND=kind)
    assert done.returncode == 20, done.stderr
    name = {"fused": r"SGD\(fused=True\)", "own": "Own"}[kind]
    assert re.search(f"error: {name} cannot step on sharded parameters: .+", done.stderr)
    assert "or --parallel ddp" in done.stderr
    assert "Traceback" not in done.stderr
