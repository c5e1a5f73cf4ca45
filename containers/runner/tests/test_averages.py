"""An average of the weights beside a model that is sharded, whole, or first the one and then the other."""

import json
import re

import pytest

from conftest import SCRIPTS, RunPaths

pytestmark = pytest.mark.slow

SCRIPT = SCRIPTS / "averaging.py"
PROCESSES = ("--nproc", "2", SCRIPT, "--parallel", "fsdp")


def numbers(words: str, text: str) -> set[str]:
    return set(re.findall(rf"{words} (-?[0-9.]+)", text))


@pytest.mark.parametrize("keep", ["whole", "shards"])
def test_what_was_kept_comes_back_in_one_process_and_in_two(finished, tmp_path, keep):
    """The same number each time: saved by two, read by one; saved by one, read by two."""
    last: set[str] = set()
    for processes, steps in ((PROCESSES, 3), (PROCESSES, 4), ((SCRIPT,), 5), (PROCESSES, 6)):
        done = finished(*processes, "--run-name", "averaged", "--steps", steps, KEEP=keep)
        assert done.returncode == 0, done.stderr
        assert numbers("given back", done.stdout) == last
        last = numbers("kept", done.stdout)
        assert len(last) == 1
    paths = RunPaths(tmp_path, "averaged")
    said = finished("evaluate", SCRIPT, "--checkpoint", paths.checkpoints, "-o", "json", KEEP=keep)
    assert said.returncode == 0, said.stderr
    loss = json.loads(said.stdout[said.stdout.index("{") :])["metrics"]["loss"]
    assert loss == pytest.approx(paths.records("val")[-1]["loss"], rel=1e-5)


def test_a_task_that_copies_a_sharded_model_is_told_what_to_do(finished):
    done = finished(*PROCESSES, "--run-name", "averaged", "--steps", "2")
    assert done.returncode == 10
    assert "devgw-run: error: Shown.setup copies a sharded model, which torch refuses" in done.stderr
    assert "Traceback" not in done.stderr
