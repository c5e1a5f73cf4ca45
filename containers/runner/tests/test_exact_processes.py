"""The same bits through real processes: SIGTERM and kill -9, alone, under DDP and under FSDP2 (gloo).

`test_exact_matrix` tries the combinations in one process; here a few go through everything that a process has.
"""

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from subjects import OPTIMIZERS, SCHEDULES, STEPS

from bits import all_tensors, differences, trainer_files
from conftest import SCRIPTS
from exact_seed import SEED, WHOLE

DEADLINE_SECONDS = 180
ALONE = ["conv", "tied", "norm-dropout", "two-groups"]
DATA = ["map", "iterable", "stateful", "shuffled", "shuffled-own-generator", "shuffled-workers"]
# What can be sharded: plain elementwise optimizers over whole parameters.
SHARDED = [
    "AdamW-fused",
    "Adam-foreach",
    "SGD-foreach",  # torch shards no fused kernel but those of Adam and AdamW
    "RMSprop-foreach",
    "AdamW-loop",
    "Adagrad-foreach",
    "NAdam-foreach",
]


USABLE = [name for name in sorted(OPTIMIZERS) if name not in {"Muon", "SparseAdam"}]
"""What takes each of these models."""


def draw(kind: str, index: int) -> tuple[str, str, str, str]:
    """All: two processes try every pair of model and optimizer, schedules and data by turns. A sample: at random."""
    chooser = random.Random(f"{SEED} {kind} {index}")
    if kind == "alone":
        return chooser.choice(ALONE), chooser.choice(USABLE), chooser.choice(sorted(SCHEDULES)), chooser.choice(DATA)
    pairs = list(itertools.product(ALONE, SHARDED if kind == "fsdp" else USABLE))
    random.Random(f"{SEED} {kind}").shuffle(pairs)
    schedules = random.Random(f"{SEED} {kind}").sample(sorted(SCHEDULES), len(SCHEDULES))
    model, optimizer = pairs[index % len(pairs)]
    if not WHOLE and kind == "ddp":
        model = "norm-dropout"  # the statistics that each process has of its own, in every run of the tests
    return model, optimizer, schedules[index % len(schedules)], "map"


def start(root: Path, kind: str, names, stop: str = "", at: int = 0) -> int:
    """Run the subject in its own process or two, and return the exit code."""
    parallel = [] if kind == "alone" else ["--nproc", "2"]
    choice = [] if kind == "alone" else ["--parallel", kind]
    command = [sys.executable, "-m", "devgw_runner", *parallel, str(SCRIPTS / "subjects.py"), *choice]
    done = subprocess.run(
        [*command, "--checkpoint-every", "2"],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "SUBJECT": "/".join(names),
            "STOP": stop,
            "AT": str(at),
            "DEVGW_TRAIN_CHECKPOINT_DIR": str(root),
            "DEVGW_TRAIN_LOG_DIR": str(root / "logs"),
        },
        cwd=root.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    if done.returncode not in {0, 143, -9, 137}:
        print(done.stdout[-2000:], done.stderr[-4000:])
    return done.returncode


WHOLE_COUNTS = {"alone": 60, "ddp": len(ALONE) * len(USABLE), "fsdp": len(ALONE) * len(SHARDED)}
CASES = [(kind, index) for kind, count in WHOLE_COUNTS.items() for index in range(count if WHOLE else 1)]
# A sample of two processes hears one signal each; `make test-exact` sends both to all.
STOPS = {"alone": ("KILL", "TERM"), "ddp": ("KILL",), "fsdp": ("TERM",)}
CODES = {"KILL": {-9, 137}, "TERM": {143}}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "index"), CASES)
def test_a_run_stopped_by_signals_ends_with_the_same_bits(kind, index, tmp_path):
    names = draw(kind, index)
    chooser = random.Random(f"{SEED} {kind} {index} steps")
    assert start(tmp_path / "whole", kind, names) == 0, names
    stopped = tmp_path / "stopped"
    for stop in STOPS["alone"] if WHOLE else STOPS[kind]:
        # Not before the fourth step: what is killed must have saved something, or nothing is resumed.
        at = chooser.randrange(4, 7) if stop == "KILL" else chooser.randrange(1, 3)
        assert start(stopped, kind, names, stop, at) in CODES[stop], names
    assert start(stopped, kind, names) == 0, names
    last = Path("subject") / f"step-{STEPS:08d}"
    found = differences(tmp_path / "whole" / last, stopped / last)
    assert not found, f"{names} with EXACT_SEED={SEED}: {found[:5]}"
    if kind == "ddp" and names[0] == "norm-dropout":
        assert_own_statistics(stopped / last)


def assert_own_statistics(checkpoint: Path) -> None:
    """Under DDP batch norm's statistics differ between processes; a checkpoint used to hold those of either."""
    files = trainer_files(checkpoint)
    own, others = (files[f"trainer-{rank}.pt"]["buffers"]["norm.running_mean"] for rank in (0, 1))
    assert not (own == others).all()
    assert (all_tensors(checkpoint)["model.norm.running_mean"] == own).all()
