"""The shipped jobs run, and the small one reaches what its docstring states."""

import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from devgw_runner import run
from devgw_runner.script import find_task
from devgw_runner.task import LossStep

from bits import differences
from conftest import RunPaths


@pytest.mark.slow
def test_the_small_classifier_reaches_its_accuracy(finished, examples, tmp_path):
    """What `make demo` and the tutorial promise, on a CPU. How long it takes is the benchmark's."""
    import json

    done = finished(str(examples / "small_classifier.py"), OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "logs" / "small_classifier" / "metrics.jsonl").read_text().splitlines()
    last = [record for record in map(json.loads, lines) if record["kind"] == "val"][-1]
    assert last["metric_accuracy"] >= 0.95


@pytest.mark.slow
def test_the_tutorials_interrupted_run_computes_the_same_bits(devgw_run, finished, examples, tmp_path, poll):
    """Its commands on fewer steps: as if nobody had pressed Ctrl-C in the longer run, to the last bit."""
    command = (str(examples / "small_classifier.py"), "--deterministic", "--log-every", "1")
    assert finished(*command, "--steps", "10").returncode == 0
    paths = RunPaths(tmp_path, "small_classifier")
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "whole")
    elsewhere = ("--checkpoint-dir", str(tmp_path / "whole"), "--log-dir", str(tmp_path / "whole-logs"))
    done = finished(*command, "--steps", "24", *elsewhere)
    assert done.returncode == 0, done.stderr

    process = devgw_run(*command, "--steps", "24")
    poll(lambda: any(record["step"] > 11 for record in paths.records()), "the longer run to begin")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert 10 < paths.steps()[-1] < 24
    assert finished(*command, "--steps", "24").returncode == 0
    last = Path("small_classifier") / "step-00000024"
    assert differences(tmp_path / "checkpoints" / last, tmp_path / "whole" / last) == []


def test_resnet50_is_resnet50(examples):
    """25 557 032 parameters, as published; 4.09 GMAC forward at 224x224."""
    from torch.utils.flop_counter import FlopCounterMode

    task = find_task(str(examples / "resnet50.py"))
    model = task().model(task.config()).to("meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_557_032
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(4.09e9, rel=0.01)


def test_gpt2_is_gpt2(examples):
    """124 M parameters with the tied, padded embedding; the published count is 124 439 808 unpadded."""
    task_type = find_task(str(examples / "gpt2.py"))
    task = task_type()
    model = task.model(task_type.config())
    padding = (50_304 - 50_257) * 768
    assert sum(parameter.numel() for parameter in model.parameters()) - padding == 124_439_808
    assert task.flops_per_sample(torch.zeros(1, 1025)) / 1024 == pytest.approx(854.8e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("resnet50.py", ["--image-size", "32", "--classes", "10", "--batch-size", "4"]),
        (
            "gpt2.py",
            ["--layers", "2", "--heads", "2", "--width", "32", "--context", "32", "--batch-size", "4"],
        ),
    ],
)
def test_a_shipped_job_trains(examples, script, flags, paths, capsys):
    task = find_task(str(examples / script))
    flags = ["--run-name", "tiny", "--steps", "3", "--log-every", "1", "--compile", "off", *flags]
    assert run(task, flags) == 0, capsys.readouterr().err
    assert len(paths.records()) == 3


def test_resnet50_reads_a_folder_of_images(examples, tmp_path):
    from PIL import Image

    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (50, 40), (200, 30, 30)).save(tmp_path / split / name / "1.jpg")
    task_type = find_task(str(examples / "resnet50.py"))
    task, config = task_type(), task_type.config(data_dir=tmp_path, image_size=32, classes=2)
    train, val = task.data(config, "train"), task.data(config, "val")
    assert len(train) == len(val) == 2
    batch = (torch.stack([train[0][0], train[1][0]]), torch.tensor([train[0][1], train[1][1]]))
    assert batch[0].shape == (2, 3, 32, 32)
    assert batch[1].tolist() == [0, 1]
    loss, _ = LossStep(task, task.model(config))(batch)
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_the_tutorial_notebook_runs(examples, tmp_path):
    """Every cell, in a fresh kernel."""
    import subprocess

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "nbconvert",
            "--to",
            "notebook",
            "--execute",
            "--output-dir",
            str(tmp_path),
            str(examples / "tutorial.ipynb"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "val accuracy" in (tmp_path / "tutorial.ipynb").read_text()
