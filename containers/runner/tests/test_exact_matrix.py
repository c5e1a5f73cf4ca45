"""What resumes to the same bits: every model, optimizer, schedule, data and interruption, in every combination.

In one process: a run is ended by SIGTERM, or as by SIGKILL, at a random step, built anew and led to its end. A sample
is tried in each run of the tests; `make test-exact` tries all. The seed is printed, EXACT_SEED repeats it.
"""

import contextlib
import itertools
import random
import shutil
from pathlib import Path

import pytest
import subjects
import torch
from devgw_runner import entry, run
from subjects import DATA, MODELS, OPTIMIZERS, SCHEDULES, SLOW_DATA, STEPS, Killed, make_subject

from bits import differences
from exact_seed import SEED, WHOLE

SAMPLE = 48


def possible(model: str, optimizer: str) -> bool:
    """Say whether torch has this pair at all."""
    if optimizer in subjects.SPECIAL_MODELS:
        return model == "conv"
    if model == "bfloat16":
        return not optimizer.endswith("fused")
    return True


def combinations() -> list[tuple[str, str, str, str]]:
    pairs = [pair for pair in itertools.product(MODELS, OPTIMIZERS) if possible(*pair)]
    quick = [name for name in DATA if name not in SLOW_DATA]
    return [(*pair, schedule, data) for pair, schedule, data in itertools.product(pairs, SCHEDULES, quick)]


def chosen() -> list[tuple[str, str, str, str]]:
    """All, or a sample in which each optimizer, schedule, model and kind of data is there."""
    every = combinations()
    if WHOLE:
        return every
    chooser = random.Random(SEED)
    chooser.shuffle(every)
    wanted = {*OPTIMIZERS, *SCHEDULES, *MODELS, *DATA} - SLOW_DATA
    sample = []
    for names in every:
        if set(names) & wanted:
            sample.append(names)
            wanted -= set(names)
    rest = [names for names in every if names not in sample]
    return sample + rest[: max(0, SAMPLE - len(sample))]


def train(root: Path, names, stop: str = "", at: int = 0) -> int:
    flags = ["--checkpoint-dir", str(root), "--log-dir", str(root / "logs"), "--checkpoint-every", "2"]
    return run(make_subject(names, stop, at), [*flags, "--no-checkpoint-async"])


def interrupt(root: Path, names, stop: str, at: int) -> None:
    """End a run at its `at`-th step: by a signal that saves, or as by SIGKILL, unless it is over before."""
    if stop == "TERM":
        assert train(root, names, stop, at) in {143, 0}
        return
    with contextlib.suppress(Killed):
        assert train(root, names, stop, at) == 0


def last(root: Path) -> Path:
    return root / "subject" / f"step-{STEPS:08d}"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Several runs at once on few CPUs must not wait for each other's threads."""
    monkeypatch.setattr(entry, "usable_cpus", lambda: 1)


@pytest.mark.parametrize("names", chosen(), ids="/".join)
def test_an_interrupted_run_ends_with_the_same_bits(names, tmp_path, capsys):
    """Stopped once by SIGTERM and once as by SIGKILL, in either order, each at a random step."""
    chooser = random.Random(f"{SEED} {names}")
    assert train(tmp_path / "whole", names) == 0, capsys.readouterr().err
    stops = [("TERM", chooser.randrange(1, 5)), ("killed", chooser.randrange(1, 7))]
    chooser.shuffle(stops)
    for stop, at in stops:
        interrupt(tmp_path / "stopped", names, stop, at)
        torch.manual_seed(chooser.randrange(1000))  # a new process does not begin where the old one was
    assert train(tmp_path / "stopped", names) == 0, capsys.readouterr().err
    found = differences(last(tmp_path / "whole"), last(tmp_path / "stopped"))
    assert not found, f"{stops} with EXACT_SEED={SEED}: {found[:5]}"
    shutil.rmtree(tmp_path)
