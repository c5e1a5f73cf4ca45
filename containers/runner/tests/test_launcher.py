"""A launcher that is killed takes its processes with it: they save together, end with a code, and hold nothing."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from devgw_runner.jobs.process import start_ticks
from devgw_runner.parallel import launcher
from devgw_runner.parallel.launcher import Launcher, find_launcher, own_description
from devgw_runner.wrap.orphans import PR_SET_CHILD_SUBREAPER

from conftest import SCRIPTS, RunPaths

ENDLESS = ["--parallel", "ddp", "--steps", "1000000", "--log-every", "1", "--run-name", "orphans"]
SECONDS = 60
A_SHELL_BETWEEN = '"$0" "$@"; exit $?'


@pytest.fixture
def adopting():
    """Be the parent of orphans, so that their exit codes can be seen."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def ended(pids: list[int]) -> bool:
    return all(start_ticks(pid) is None for pid in pids)


def code_of(pid: int) -> int | None:
    """The exit code of an orphan that we adopted; None for one whose own parent waited for it."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize(("between", "script"), [("nothing", "blocks"), ("a-shell", "blocks"), ("nothing", "closing")])
def test_processes_whose_launcher_was_killed_save_and_end(
    adopting, devgw_run, finished, tmp_path, poll, between, script
):
    """Ours starts them itself; with a plain torchrun there may be a shell between the two.

    One may see that the launcher is gone when it has saved already, because the other saw it.
    """
    script = SCRIPTS / f"{script}.py"
    plain = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    if between == "nothing":
        process = devgw_run("--nproc", "2", script, *ENDLESS)
    else:
        line = [*plain, "bash", "-c", A_SHELL_BETWEEN, sys.executable, script, *ENDLESS]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    paths = RunPaths(tmp_path, "orphans")
    poll(lambda: len(paths.records()) > 3, "training to begin")
    ranks = descendants(process.pid)
    process.kill()
    poll(lambda: ended(ranks), "the processes to end", SECONDS)
    process.wait(timeout=SECONDS)
    assert [code for code in map(code_of, ranks) if code is not None] == [143, 143]
    (saved,) = paths.steps()
    assert "stopped by SIGTERM" in paths.events("stopped")[0]["text"]
    flags = ["--steps", str(saved + 1), "--run-name", "orphans"]
    again = finished("--nproc", "2", script, "--parallel", "ddp", *flags)
    assert again.returncode == 0, again.stderr
    assert f"resumed from step-{saved:08d}" in again.stdout


DEAF = """
import os, signal, sys, threading
from devgw_runner.parallel.launcher import ending_with, find_launcher
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with ending_with(find_launcher(), lambda number: os.kill(os.getpid(), number), 0.2):
    print("waiting", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def start():
    """Start processes that are killed and waited for at the end."""
    started: list[subprocess.Popen] = []

    def begin(line, environment=None) -> subprocess.Popen:
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(line, env=environment, **quiet))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=SECONDS)


def test_a_process_that_cannot_be_asked_ends_all_the_same(start):
    """It waits in a library's own code, where Python's handlers are not called."""
    stand_in = start(["sleep", "600"])
    description = f"{stand_in.pid}:{start_ticks(stand_in.pid)}:{Path('/proc/self/ns/pid').readlink()}"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "t", launcher.VARIABLE: description}
    process = start([sys.executable, "-c", DEAF], environment)
    assert process.stdout.readline() == b"waiting\n"
    stand_in.kill()
    assert process.wait(timeout=SECONDS) == 143


def test_a_launcher_is_looked_for_by_the_processes_of_one_alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv(launcher.VARIABLE, own_description())
    assert find_launcher() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "t")
    assert find_launcher() == Launcher(os.getpid(), start_ticks(os.getpid()))


def test_numbers_of_another_process_namespace_are_not_believed(monkeypatch):
    """There they are another process's, or nobody's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "t")
    monkeypatch.setenv(launcher.VARIABLE, "4000000:1:pid:[1]")
    found = find_launcher()
    assert found is None or found == Launcher(os.getppid(), start_ticks(os.getppid()))


def test_a_script_under_wrap_ends_with_its_launcher(devgw_run, tmp_path, poll):
    """Nothing in the script watches for that; what started the launcher does."""
    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib, signal, sys, threading\n"
        "def end(*_): pathlib.Path('told' + os.environ['RANK']).touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('ready' + os.environ['RANK']).touch()\n"
        "while True: threading.Event().wait(60)\n"
    )
    process = devgw_run("--nproc", "2", "--wrap", "--", sys.executable, script)
    poll(lambda: len(list(tmp_path.glob("ready*"))) == 2, "both to begin")
    started = descendants(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(started[0], signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 137
    assert ended(started)
    assert len(list(tmp_path.glob("told*"))) == 2


def test_the_watch_ends_with_the_block():
    with launcher.ending_with(Launcher(os.getpid(), start_ticks(os.getpid())), signal.raise_signal):
        watches = [thread for thread in threading.enumerate() if thread.name == "launcher-watch"]
        assert len(watches) == 1
    watches[0].join(timeout=SECONDS)
    assert not watches[0].is_alive()
