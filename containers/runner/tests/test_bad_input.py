"""Every kind of bad input: one sentence, one hint, its own exit code, and nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stumbling
import tiny
import torch
from devgw_runner import run
from devgw_runner.checkpoint import store

from conftest import DEADLINE_SECONDS

QUICK = ["--run-name", "tiny", "--steps", "6", "--log-every", "1"]


def attempt(task, *flags: str) -> int:
    return run(task, [*QUICK, *flags])


def assert_told(capsys, message: str) -> None:
    """Two lines: what went wrong, and what to do."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2, lines
    assert lines[0].startswith("devgw-run: error: ")
    assert message in lines[0]
    assert lines[1].startswith("devgw-run: hint: ")
    assert len(lines[1]) > len("devgw-run: hint: ")
    assert not any(line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    ("task", "flags", "code", "message"),
    [
        # the task
        (stumbling.WithoutLoss, [], 10, "task WithoutLoss has no 'loss'"),
        (stumbling.VectorLoss, [], 10, "VectorLoss.loss has shape (8,)"),
        (stumbling.DetachedLoss, [], 10, "DetachedLoss.loss does not depend on the model"),
        (stumbling.NumberLoss, [], 10, "NumberLoss.loss returned a float"),
        (stumbling.VectorMetric, [], 10, "the metric accuracy of VectorMetric.loss has shape (8,)"),
        (stumbling.NumberMetric, [], 10, "the metric accuracy of NumberMetric.loss is a float"),
        (stumbling.NumberEvaluated, ["--eval-every", "1"], 10, "the metric f1 of NumberEvaluated.metrics is a float"),
        (stumbling.NoModule, [], 10, "NoModule.model returned a str"),
        # the data
        (stumbling.WordBatches, [], 11, "a batch holds a str"),
        (stumbling.EmptyData, [], 11, "the train data is empty"),
        (stumbling.EmptyVal, [], 11, "the val data is empty"),
        (stumbling.NoData, [], 11, "the task has no train data"),
        (tiny.Tiny, ["--batch-size", "65"], 11, "64 samples are fewer than one batch of 65"),
        # the device
        (tiny.Tiny, ["--precision", "fp8"], 14, "precision fp8 needs a GPU of SM 8.9"),
        (tiny.Tiny, ["--precision", "fp16"], 14, "precision fp16 needs a GPU"),
        (tiny.Tiny, ["--device", "cuda"], 17, "no CUDA device is usable"),
        # the settings
        (tiny.Tiny, ["--presicion", "bf16"], 2, "unknown flag --presicion"),
        (tiny.Tiny, ["--learning-rate", "inf"], 2, "--learning-rate"),
        (tiny.Tiny, ["--parallel", "fsdp"], 2, "--parallel fsdp needs several processes"),
        (tiny.Tiny, ["--data-dir", "/nowhere"], 2, "the data directory /nowhere does not exist"),
        # the volumes
        (tiny.Tiny, ["--checkpoint-dir", "/proc/devgw"], 13, "preparing the checkpoints directory"),
        (tiny.Tiny, ["--log-dir", "/proc/devgw"], 13, "preparing the logs directory"),
        (tiny.Tiny, ["--resume", "/nowhere"], 12, "there is no checkpoint at /nowhere"),
    ],
)
def test_bad_input_is_told_in_one_sentence_with_its_own_code(capsys, task, flags, code, message):
    if torch.cuda.is_available() and code in {14, 17}:
        flags = [*flags, "--device", "cpu"] if code == 14 else ["--device", "cuda", "--data-dir", "/nowhere"]
    assert attempt(task, *flags) == code
    assert_told(capsys, message)


def test_a_checkpoint_directory_that_is_a_file_is_refused(capsys, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert attempt(tiny.Tiny, "--checkpoint-dir", str(tmp_path / "file")) == 13
    assert_told(capsys, "checkpoints directory")


def test_checkpoints_inside_the_data_are_refused(capsys, tmp_path: Path):
    (tmp_path / "data").mkdir()
    inside = str(tmp_path / "data" / "checkpoints")
    assert attempt(tiny.Tiny, "--data-dir", str(tmp_path / "data"), "--checkpoint-dir", inside) == 2
    assert_told(capsys, "lies inside the data")


def test_one_directory_for_two_purposes_is_refused(capsys, tmp_path: Path):
    assert attempt(tiny.Tiny, "--checkpoint-dir", str(tmp_path / "x"), "--log-dir", str(tmp_path / "x")) == 2
    assert_told(capsys, "share a directory")


def test_a_read_only_volume_is_named_and_nothing_is_written(tmp_path: Path):
    """A real read-only mount, in a private mount namespace of its own."""
    volume = tmp_path / "volume"
    volume.mkdir()
    command = (
        f"mount --bind {volume} {volume} && mount -o remount,bind,ro {volume} && "
        f"exec {sys.executable} -m devgw_runner {Path(tiny.__file__)} --steps 2 --checkpoint-dir {volume}"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 19, done.stderr
    assert "read-only file system" in done.stderr
    assert list(volume.iterdir()) == []


def test_a_full_disk_stops_the_run_and_keeps_the_earlier_checkpoints(tmp_path: Path, finished, tiny_script, paths):
    """A real full file system: a tmpfs of 400 KiB in a private mount namespace."""
    volume = tmp_path / "checkpoints"
    kept = tmp_path / "kept"
    volume.mkdir()
    command = (
        f"mount -t tmpfs -o size=400k none {volume} && "
        f"{sys.executable} -m devgw_runner {tiny_script} --steps 6 --checkpoint-every 1 --checkpoint-keep 90 "
        f"--width 512; code=$?; cp -r {volume} {kept}; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 13, done.stderr
    assert "devgw-run: error: no space left while saving a checkpoint" in done.stderr
    survivors = store.list_checkpoints(kept / "tiny")
    assert survivors, "nothing was saved before the disk was full"
    for checkpoint in survivors:
        store.verify(checkpoint)
    assert not list((kept / "tiny").glob(".tmp-*"))


@pytest.mark.parametrize(
    ("flags", "output"),
    [("", ""), ("--csv", ""), ("--prometheus textfile", ""), ("", "> {volume}/out 2>&1")],
    ids=["jsonl", "csv", "prometheus", "output"],
)
def test_a_full_log_disk_stops_the_run_with_its_own_code(tmp_path: Path, tiny_script, flags, output):
    """A real full file system of 32 KiB, also where the output itself goes there: a detached run's does."""
    volume = tmp_path / "full"
    volume.mkdir()
    where = f"--log-dir {volume} --progress-seconds 0.0001 --log-every 1 --steps 100000 {flags}"
    command = (
        f"mount -t tmpfs -o size=32k none {volume} && "
        f"exec {sys.executable} -m devgw_runner {tiny_script} {where} {output.format(volume=volume)}"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
    )
    assert done.returncode == 13, done.stderr
    if not output:
        assert_two_lines(done.stderr, "no space left while writing")


def assert_two_lines(error: str, message: str) -> None:
    lines = error.strip().splitlines()
    assert len(lines) == 2, error
    assert message in lines[0]


def test_a_corrupt_newest_checkpoint_is_passed_over_for_an_older_one(capsys, paths):
    assert attempt(tiny.Tiny, "--checkpoint-every", "2") == 0
    newest = paths.checkpoints / "step-00000006"
    victim = next(newest.glob("*.distcp"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert attempt(tiny.Tiny) == 0
    out = capsys.readouterr().out
    assert "step-00000006 cannot be used" in out
    assert "does not match its checksum; using step-00000004" in out
    assert store.verify(newest).step == 6  # trained anew and saved whole


@pytest.mark.parametrize("damage", ["missing file", "short file", "no manifest", "half manifest"])
def test_a_half_checkpoint_is_never_loaded(capsys, paths, damage):
    assert attempt(tiny.Tiny) == 0
    only = paths.checkpoints / "step-00000006"
    if damage == "missing file":
        (only / "trainer-0.pt").unlink()
    elif damage == "short file":
        os.truncate(only / "trainer-0.pt", 10)
    elif damage == "no manifest":
        (only / "MANIFEST.json").unlink()
    else:
        os.truncate(only / "MANIFEST.json", 30)
    capsys.readouterr()
    assert attempt(tiny.Tiny) == 12
    assert_told(capsys, "none of 1 checkpoints can be used")
    assert only.is_dir(), "an unusable checkpoint is the user's to delete"


def test_a_checkpoint_of_another_model_is_refused_and_kept(capsys, paths):
    assert attempt(tiny.Tiny) == 0
    capsys.readouterr()
    assert attempt(tiny.Tiny, "--width", "20", "--steps", "8") == 18
    assert_told(capsys, "0.bias is (16) there, (20) here")
    assert attempt(stumbling.Wider, "--steps", "8") == 18
    assert paths.steps() == [6]


def test_a_loss_that_is_not_finite_stops_with_the_batch_and_keeps_good_checkpoints(capsys, paths):
    stumbling.BecomesNan.calls = 0
    code = run(stumbling.BecomesNan, ["--run-name", "tiny", "--steps", "40", "--checkpoint-every", "5"])
    assert code == 15
    error = capsys.readouterr().err
    assert "the loss is not finite at step 11 (epoch 1, batch 2)" in error
    assert paths.steps() == [5, 10]


def test_skip_leaves_out_the_bad_step_and_goes_on(capsys, paths):
    stumbling.BecomesNan.calls = 0
    flags = ["--run-name", "tiny", "--steps", "16", "--log-every", "1", "--nan", "skip"]
    assert run(stumbling.BecomesNan, flags) == 0
    assert len(paths.events("skipped")) == 1
    assert paths.records()[-1]["skipped_steps"] == 1
    assert torch.isfinite(torch.tensor([record["loss"] for record in paths.records()])).all()


def test_out_of_memory_halves_the_micro_batch_until_it_fits(capsys, paths):
    stumbling.Hungry.armed, stumbling.Hungry.sizes = False, []
    assert attempt(stumbling.Hungry) == 0
    assert [event["micro_batch"] for event in paths.events("oom")] == [4, 2]
    assert len(paths.records()) == 6
    manifest = json.loads((paths.checkpoints / "step-00000006" / "MANIFEST.json").read_text())
    assert manifest["numerics"]["micro_batch"] == 2


def test_out_of_memory_can_stop_instead(capsys, paths):
    stumbling.Hungry.armed = False
    assert attempt(stumbling.Hungry, "--oom", "stop") == 16
    assert "--micro-batch 4" in capsys.readouterr().err


def test_a_task_that_writes_to_a_read_only_volume_is_told_so(tmp_path: Path):
    """EROFS from inside the user's code keeps its own code, and the traceback that shows where."""
    data = tmp_path / "data"
    data.mkdir()
    script = tmp_path / "writes.py"
    script.write_text(
        "from tiny import Tiny\nfrom devgw_runner import run\n"
        "class Writes(Tiny):\n    def data(self, cfg, split):\n"
        "        open(cfg.data_dir / 'cache.bin', 'wb')\n"
        "run(Writes)\n"
    )
    command = (
        f"mount --bind {data} {data} && mount -o remount,bind,ro {data} && "
        f"exec {sys.executable} -m devgw_runner {script} --data-dir {data}"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 19, done.stderr
    assert f"write refused on a read-only file system: {data}/cache.bin" in done.stderr
    assert "data volumes are read-only" in done.stderr
