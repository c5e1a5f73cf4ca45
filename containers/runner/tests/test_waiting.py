"""A process that stops answering does not leave the others waiting: they say for what they waited, and end with 23."""

import os
import re
import subprocess
import sys
import time

import pytest
from devgw_runner.errors import GroupTimeoutError
from devgw_runner.parallel import waiting
from devgw_runner.parallel.launcher import Launcher
from devgw_runner.parallel.waiting import Awaited, timeout_error, troubled_neighbours, waited_in_vain
from devgw_runner.parallel.world import World, failed_by_another
from torch.distributed.checkpoint.api import CheckpointException

from conftest import SCRIPTS, RunPaths

PATIENCE = "6"
TWO = ("--nproc", "2", SCRIPTS / "stopping.py", "--steps", "8", "--group-timeout-seconds", PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "how", "words"),
    [
        ("join", "STOP", "to join the run"),
        ("start", "STOP", "at the start"),
        ("step", "STOP", "in step [34]"),
        ("step", "sleep", "in step [34]"),
        ("checkpoint", "STOP", "at the checkpoint of step 3"),
        ("evaluation", "STOP", "in the evaluation at step 4"),
    ],
)
def test_a_process_that_does_not_answer_ends_the_run_with_what_was_waited_for(finished, where, how, words):
    """Torchrun ends the one that does not answer."""
    done = finished(*TWO, "--parallel", "ddp", WHERE=where, HOW=how)
    assert done.returncode == 23, done.stderr
    said = re.findall(r"^devgw-run: error: .*$", done.stderr, flags=re.MULTILINE)
    stopped = r"; process 1 \(pid \d+\) is stopped" if how == "STOP" else ""
    assert len(said) == 1, said
    assert re.fullmatch(rf"devgw-run: error: waited 6 s for another process {words}{stopped}", said[0])
    assert "hint: its last words or the kernel's log say why; --group-timeout-seconds allows more time" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_under_fsdp_it_ends_the_same(finished, tmp_path):
    """What was saved before is whole."""
    done = finished(*TWO, "--parallel", "fsdp", "--no-checkpoint-async", WHERE="evaluation", HOW="STOP")
    assert done.returncode == 23, done.stderr
    assert "waited 6 s for another process in the evaluation at step 4" in done.stderr
    assert RunPaths(tmp_path, "stopping").steps() == [3]


@pytest.mark.slow
def test_a_process_that_was_killed_is_noticed_at_once_and_its_code_is_the_runs(finished):
    """Its connection is closed: nobody waits for the time to pass."""
    began = time.monotonic()
    done = finished(*TWO[:-1], "600", WHERE="step", HOW="KILL")
    assert done.returncode == 137, done.stderr
    assert "waited" not in done.stderr
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    "words",
    [
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 6000ms for recv operation to complete",
        "[unbound_buffer.cc:119] Timed out waiting 6000ms for send operation to complete",
        "Application timeout caused pair closure",  # to whoever waits on the same connection
        "wait timeout after 6000ms, keys: /default_pg/0//cpu//0/rank_1",
        "Timed out after 7 seconds waiting for clients. 1/2 clients joined.",
    ],
)
def test_the_words_of_gloo_and_the_store_for_a_wait_are_known(words):
    assert waited_in_vain(RuntimeError(words))
    assert failed_by_another(RuntimeError(words))
    assert waited_in_vain(CheckpointException("write", {0: (RuntimeError(words), None)}))


@pytest.mark.parametrize("words", ["DataLoader timed out after 30 seconds", "Timed out waiting for my own server"])
def test_other_things_may_take_too_long_without_being_another_process(words):
    assert not failed_by_another(RuntimeError(words))
    assert not failed_by_another(ValueError("wait timeout after 6000ms, keys: a"))


def test_what_is_known_of_a_neighbour_is_said(monkeypatch, poll):
    """It is asked of the kernel, by the launcher's children."""
    line = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]
    stopped = subprocess.Popen(line, env={**os.environ, "RANK": "5"})
    try:
        monkeypatch.setattr(waiting, "find_launcher", lambda: Launcher(os.getpid(), 0))
        poll(lambda: bool(troubled_neighbours()), "the process to stop", 30)
        error = timeout_error(0, 6.0, Awaited("in step 4"))
    finally:
        stopped.kill()
        stopped.wait(timeout=30)
    assert isinstance(error, GroupTimeoutError)
    assert error.message == f"waited 6 s for another process in step 4; process 5 (pid {stopped.pid}) is stopped"


def test_a_world_says_where_it_may_wait():
    assert World() == World()
    assert World().awaited.what == "to join the run"
