"""However a run ends, it ends within seconds, with the error and its code; loader processes never keep it."""

import multiprocessing
import signal
import subprocess
import threading
import time

import pytest
import tiny
from devgw_runner import run
from devgw_runner.ladder import CompileTimeoutError
from devgw_runner.time_limit import REPEAT_SECONDS, time_limit
from jupyter_client.manager import start_new_kernel

from conftest import SCRIPTS, RunPaths

SCRIPT = SCRIPTS / "ending.py"
SECONDS = 40
"""Imports take most of it on a busy machine; what hangs never ends."""


def end(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=SECONDS)
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raises", "loader", "extra"),
    [
        # in the main process
        ("loss", "runner", {}),
        ("loss", "own", {}),
        ("loss", "persistent", {}),
        ("loss", "generator", {}),
        ("metrics", "runner", {}),
        # in a loader process
        ("data", "runner", {}),
        ("data", "own", {}),
        # while loader processes hang
        ("loss", "runner", {"DEAF": "1"}),
        ("loss", "own", {"DEAF": "1"}),
    ],
)
def test_an_exception_ends_the_run_whatever_its_loader_processes_do(devgw_run, raises, loader, extra):
    process = devgw_run(SCRIPT, "--batch-size", "8", "--workers", "2", RAISES=raises, LOADER=loader, **extra)
    code, err = end(process)
    assert code == 1, err
    assert ("corrupt JPEG 77" if raises == "data" else "a bug of one's own") in err


@pytest.mark.slow
def test_an_exception_in_one_process_ends_all_of_them(devgw_run):
    line = ["--nproc", "2", SCRIPT, "--batch-size", "8", "--workers", "2"]
    code, err = end(devgw_run(*line, RAISES="loss", RAISING_RANK="1"))
    assert code == 1
    assert "a bug of one's own" in err


@pytest.mark.slow
def test_a_process_that_the_tasks_own_code_forked_does_not_keep_the_run(devgw_run, tmp_path):
    """It inherits the run's handlers, and Python's exit waits for it after a SIGTERM."""
    script = tmp_path / "forks.py"
    script.write_text(
        "import multiprocessing, threading, ending\n"
        "from devgw_runner import run\n"
        "class Forks(ending.Ending):\n"
        "    def schedule(self, optimizer, cfg, total_steps):\n"
        "        multiprocessing.Process(target=threading.Event().wait, daemon=True).start()\n"
        "run(Forks)\n"
    )
    process = devgw_run(script, "--steps", "2", "--run-name", "forks", PYTHONPATH=str(SCRIPTS))
    code, err = end(process)
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_sigterm_is_answered_while_a_batch_never_comes(devgw_run, tmp_path, poll, workers):
    """The steps before it are saved; the grace is for a batch that is merely slow."""
    flags = ["--batch-size", "8", "--workers", workers, "--run-name", "stuck", "--steps", "64"]
    process = devgw_run(SCRIPT, *flags, STUCK="1")
    poll((tmp_path / "stuck").exists, "the loader to hang")
    process.terminate()
    code, err = end(process)
    assert code == 143, err
    assert len(RunPaths(tmp_path, "stuck").steps()) == 1


@pytest.mark.slow
def test_sigterm_is_answered_by_all_processes_while_one_has_no_batch(devgw_run, tmp_path, poll):
    """Nothing can be saved together then, and that is said."""
    line = ["--nproc", "2", SCRIPT, "--batch-size", "8", "--workers", "0", "--run-name", "stuck"]
    process = devgw_run(*line, STUCK="1")
    poll((tmp_path / "stuck").exists, "the loader to hang")
    process.terminate()
    code, err = end(process)
    assert code == 143, err
    stopped = RunPaths(tmp_path, "stuck").events("stopped")
    assert "no checkpoint was saved" in stopped[0]["text"]


@pytest.mark.slow
def test_a_slow_batch_is_waited_for_and_trained_on(devgw_run, tmp_path, poll):
    """A stop signal between two batches interrupts nothing: a loader that remembers its position stays exact."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import pathlib, time, torch\n"
        "from ending import Ending\nfrom devgw_runner import run\n"
        "class Slow:\n"
        "    at = 0\n"
        "    def __iter__(self):\n"
        "        while True:\n"
        "            self.at += 1\n"
        "            if self.at == 8: pathlib.Path('slow').touch(); time.sleep(2)\n"
        "            yield torch.ones(8, 6), torch.zeros(8, 1)\n"
        "    def state_dict(self): return {'at': self.at}\n"
        "    def load_state_dict(self, state): self.at = state['at']\n"
        "class Patient(Ending):\n"
        "    def data(self, cfg, split): return Slow() if split == 'train' else None\n"
        "run(Patient)\n"
    )
    process = devgw_run(script, "--steps", "99", "--run-name", "slow", PYTHONPATH=str(SCRIPTS))
    poll((tmp_path / "slow").exists, "the slow batch")
    process.terminate()
    code, err = end(process)
    assert code == 143, err
    paths = RunPaths(tmp_path, "slow")
    assert paths.events("not-exact") == []
    assert paths.steps() != []


CELL = """
import pathlib, sys, time, torch
from torch import nn
from devgw_runner import Task, TrainConfig, run
class Slow(Task):
    calls = 0
    def model(self, cfg): return nn.Linear(4, 1)
    def loss(self, model, batch):
        self.calls += 1
        if self.calls == 3: pathlib.Path("training").touch()  # the first call is the look at a first batch
        time.sleep(0.5)
        return model(batch[0]).pow(2).mean()
    def data(self, cfg, split):
        return torch.utils.data.TensorDataset(torch.randn(64, 4)) if split == "train" else None
important = 42
"""
STARTS = {
    "config": 'run(Slow, TrainConfig(steps=2000, batch_size=8, compile="off"))',
    "arguments": 'run(Slow, ["--steps", "2000", "--batch-size", "8", "--compile", "off"])',
    "command line": 'sys.argv[1:] = ["--steps", "2000", "--batch-size", "8", "--compile", "off"]; run(Slow)',
}


class Kernel:
    """A real IPython kernel that is asked one thing at a time."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def ask(self, code: str) -> str:
        return self.client.execute(code)

    def answer(self, asked: str) -> str:
        """Collect output and errors until the kernel is idle again."""
        deadline, heard = time.monotonic() + SECONDS, []
        while time.monotonic() < deadline:
            assert self.manager.is_alive(), "the kernel is dead"
            if not self.client.iopub_channel.msg_ready():
                threading.Event().wait(0.05)
                continue
            message = self.client.get_iopub_msg(timeout=1)
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            heard.append(content.get("text") or "".join(content.get("traceback", ())))
            if content.get("execution_state") == "idle":
                return "".join(heard)
        raise AssertionError(f"the kernel was not idle after {SECONDS} s")


@pytest.fixture(scope="module")
def kernel():
    started = Kernel()
    yield started
    started.manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("start", list(STARTS))
def test_a_second_interrupt_in_a_notebook_raises_and_the_kernel_lives(kernel, tmp_path, poll, start):
    """However run is called there: the process is the notebook's."""
    where = f"import os; os.chdir({str(tmp_path)!r}); "
    kernel.answer(kernel.ask(where + "[os.environ.pop(n) for n in list(os.environ) if n.startswith('DEVGW_')]"))
    asked = kernel.ask(CELL + STARTS[start])
    poll((tmp_path / "training").exists, "training to begin")
    kernel.manager.interrupt_kernel()
    time_between_two_presses = 0.1
    threading.Event().wait(time_between_two_presses)
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.answer(asked)
    assert "42" in kernel.answer(kernel.ask("print(important)"))


@pytest.mark.slow
def test_one_interrupt_in_a_notebook_saves_and_says_so(kernel, tmp_path, poll):
    kernel.answer(kernel.ask(f"import os; os.chdir({str(tmp_path)!r})"))
    asked = kernel.ask(CELL + STARTS["config"])
    poll((tmp_path / "training").exists, "training to begin")
    kernel.manager.interrupt_kernel()
    heard = kernel.answer(asked)
    assert "stopped by SIGINT" in heard
    assert "RunStoppedError" in heard


def test_a_run_in_another_thread_works_without_handlers(paths):
    """Python delivers signals to the main thread only, so nothing of ours may need them."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    codes: list[int] = []
    config = tiny.TinyConfig(run_name="tiny", steps=3, compile="default", compile_timeout_seconds=0.01)
    thread = threading.Thread(target=lambda: codes.append(run(tiny.Tiny, config)))
    thread.start()
    thread.join(timeout=SECONDS)
    assert codes == [0]
    assert paths.steps() == [3]
    assert [fall["cause"] for fall in paths.events("fall")] == ["CompileTimeoutError"] * 2
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize("in_main_thread", [True, False])
@pytest.mark.parametrize("seconds", [1e-6, 0.001, 0.05])
def test_a_time_limit_ends_what_takes_too_long_and_nothing_later(in_main_thread, seconds):
    """Also one that is over before the block has begun: the limit ends, and the error is the one that is told."""
    outcomes: list[str] = []

    def work() -> None:
        try:
            with time_limit(seconds):
                while True:
                    pass
        except CompileTimeoutError as exc:
            outcomes.append(f"{type(exc).__name__}: {exc}")
        with time_limit(60):
            end = time.monotonic() + 2.5 * REPEAT_SECONDS
            while time.monotonic() < end:
                pass
            outcomes.append("in time")

    if in_main_thread:
        work()
    else:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(timeout=SECONDS)
    assert outcomes == ["CompileTimeoutError: took longer than 0 s", "in time"]


def test_loader_processes_of_a_finished_run_are_gone(paths):
    """In a notebook nothing else would end them."""
    before = multiprocessing.active_children()
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "3", "--workers", "2"]) == 0
    assert multiprocessing.active_children() == before
