"""A resumed run computes the same bits as one that was never interrupted."""

import random
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from conftest import RunPaths

STEPS = 40
FLAGS = ("--deterministic", "--steps", str(STEPS), "--log-every", "1", "--checkpoint-every", "6")


def all_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: model, buffers and optimizer."""
    reader = FileSystemReader(checkpoint)
    target = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(target, storage_reader=reader, no_dist=True)
    return target


def assert_same_bits(one: RunPaths, other: RunPaths) -> None:
    first = all_tensors(one.checkpoints / f"step-{STEPS:08d}")
    second = all_tensors(other.checkpoints / f"step-{STEPS:08d}")
    assert first.keys() == second.keys()
    assert len(first) > 10
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    # Each step's loss too, whichever process computed it last.
    losses = {record["step"]: record["loss"] for record in one.records()}
    assert losses == {record["step"]: record["loss"] for record in other.records()}
    assert set(losses) == set(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The same run, never disturbed; made once."""
    import os
    import subprocess
    import sys

    from conftest import SCRIPTS

    root = tmp_path_factory.mktemp("uninterrupted")
    subprocess.run(
        [sys.executable, "-m", "devgw_runner", str(SCRIPTS / "tiny.py"), *FLAGS],
        cwd=root,
        check=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DEVGW_TRAIN_CHECKPOINT_DIR": str(root / "checkpoints"),
            "DEVGW_TRAIN_LOG_DIR": str(root / "logs"),
        },
        timeout=300,
    )
    return RunPaths(root)


def interrupt(finished, paths: RunPaths, script: Path, where: str) -> int:
    plan = paths.logs / "plan.json"
    plan.unlink(missing_ok=True)
    return finished(script, *FLAGS, SIGNAL_AT=where, PLAN=str(plan)).returncode


@pytest.mark.slow
def test_kill_9_at_random_steps_then_resume_gives_the_same_bits(finished, paths, tiny_script, uninterrupted):
    """SIGKILL runs no handler and no `finally`: what was sealed before is what counts."""
    chooser = random.Random()
    killed = 0
    for _ in range(3):
        step = chooser.randrange(2, 18)
        code = interrupt(finished, paths, tiny_script, f"train:{step}:KILL")
        killed += code == -9
        print(f"killed at this process's training step {step}, code {code}")
    assert killed >= 1
    assert finished(tiny_script, *FLAGS).returncode == 0
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_sigterm_in_training_saves_and_resumes_to_the_same_bits(finished, paths, tiny_script, uninterrupted):
    """The checkpoint is of the step that was running when the signal came."""
    step = random.randrange(2, STEPS - 2)
    assert interrupt(finished, paths, tiny_script, f"train:{step}:TERM") == 143
    assert step in paths.steps()
    assert finished(tiny_script, *FLAGS).returncode == 0
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_sigterm_in_evaluation_saves_and_the_evaluation_is_made_up(finished, paths, tiny_script, uninterrupted):
    """The interrupted evaluation leaves no record; the resumed run makes it before it trains on."""
    assert interrupt(finished, paths, tiny_script, "eval:2:TERM") == 143
    assert paths.records("val") == []
    assert paths.steps()[-1] == 8  # the end of the first epoch
    assert finished(tiny_script, *FLAGS).returncode == 0
    assert [record["step"] for record in paths.records("val")] == [8, 16, 24, 32, 40]
    assert paths.records("val") != []
    expected = [record["loss"] for record in uninterrupted.records("val")]
    assert [record["loss"] for record in paths.records("val")] == expected
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_sigterm_while_compiling_saves_the_untouched_state(
    devgw_run, finished, paths, tiny_script, tmp_path, poll, uninterrupted
):
    """A compilation takes longer than a container's grace period; the signal ends it at once."""
    cold = {"DEVGW_TRAIN_CACHE_DIR": str(tmp_path / "cold-cache")}
    process = devgw_run(tiny_script, *FLAGS, "--compile", "default", **cold)
    poll(lambda: bool(paths.events("warm-up")), "the compilation to begin")
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert paths.steps() == [0]
    assert paths.events("warm-up-done") == []
    assert finished(tiny_script, *FLAGS, "--compile", "off").returncode == 0
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_loader_processes_do_not_change_the_bits(finished, paths, tiny_script, uninterrupted):
    """Augmentation is seeded per batch, so it does not matter which process loads it."""
    assert interrupt(finished, paths, tiny_script, "train:11:TERM") == 143
    assert finished(tiny_script, *FLAGS, "--workers", "2").returncode == 0
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_sigusr1_saves_a_checkpoint_and_training_goes_on(finished, paths, tiny_script, uninterrupted):
    """The signal that the gateway sends before a lease ends."""
    assert interrupt(finished, paths, tiny_script, "train:39:USR1") == 0
    assert 39 in paths.steps()
    assert_same_bits(uninterrupted, paths)


@pytest.mark.slow
def test_a_run_that_is_done_does_nothing_more(finished, paths, tiny_script, uninterrupted):
    """Starting a finished run again is no error: a scheduler may do so."""
    assert finished(tiny_script, *FLAGS).returncode == 0
    again = finished(tiny_script, *FLAGS)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert_same_bits(uninterrupted, paths)
