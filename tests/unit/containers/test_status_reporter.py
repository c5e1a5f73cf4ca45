"""What an environment tells the gateway, and what it does when it is told to save: with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from devgw_environment import status_reporter
from devgw_environment.contract import Environment
from devgw_environment.kernel_watch import kernels_file, read_busy_kernels, write_busy_kernels
from devgw_environment.refusals import note_refusal
from devgw_environment.use import CpuMeter, is_own

from tests.support.nvml_standin.library import build

SOURCES = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
UUID = "GPU-00000000-1111-4222-8333-444444444444"
CATCHES = (
    "import signal,sys,time\nsignal.signal(10, lambda *_: sys.exit(7))\nprint('ready', flush=True)\ntime.sleep(60)"
)
IGNORES = "import time\nprint('ready', flush=True)\ntime.sleep(60)"


def wait_for(condition: Callable[[], object], seconds: float = 15) -> object:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the state was not reached in time"
        time.sleep(0.02)
    return value


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment's folders."""
    for name in ("run", "env", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    made = Environment("alice", tmp_path / "home", "/bin/sh", tmp_path / "run", tmp_path / "env", 1)
    made.scratch.mkdir()
    return made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the driver's library, built once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str, str], "subprocess.Popen[str]"]]:
    """A function that starts a Python program under a name of its own, and returns when it runs."""
    started = []

    def starting(name: str, code: str) -> "subprocess.Popen[str]":
        program = tmp_path / name
        program.write_text(code)
        process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield starting
    for process in started:
        process.kill()
        process.wait(timeout=60)


def probe(environment: Environment, library: Path, *facts: str) -> tuple[int, str]:
    """Run the probe in a process of its own on a host described by the stand-in's lines."""
    (environment.run_folder / "facts").write_text("\n".join(facts) + "\n")
    variables = {
        **os.environ,
        "PYTHONPATH": str(SOURCES),
        "LD_LIBRARY_PATH": str(library),
        "NVML_STANDIN": str(environment.run_folder / "facts"),
        "DEVGW_CONFIG_FOLDER": str(environment.config_folder),
    }
    command = [sys.executable, "-m", "devgw_environment", "probe"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout.strip()


def lease(environment: Environment, *uuids: str) -> None:
    (environment.config_folder / "environment.json").write_text(json.dumps({"version": 1, "gpus": uuids}))


def test_a_gpu_that_answers_is_well(environment: Environment, library: Path) -> None:
    lease(environment, UUID)
    assert probe(environment, library, f"gpu {UUID} 81559 0 NVIDIA A100") == (0, "")


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (["init 999"], "Failed to initialize NVML: Stand-in error"),
        (["init 18"], "Failed to initialize NVML: Driver/library version mismatch"),
        ([], f"{UUID}: Stand-in error"),
        ([f"gpu {UUID} 81559 0 NVIDIA A100", "lost 0"], f"{UUID}: Stand-in error"),
    ],
)
def test_a_gpu_that_is_lost_is_noticed(environment: Environment, library: Path, facts: list[str], problem: str) -> None:
    """Its device cgroup was rewritten, the driver changed, another GPU is seen, or it fell off the bus."""
    lease(environment, UUID)
    assert probe(environment, library, *facts) == (1, problem)


def test_an_environment_without_a_gpu_asks_nobody(environment: Environment, tmp_path: Path) -> None:
    """No library is looked for."""
    lease(environment)
    assert probe(environment, tmp_path) == (0, "")


def test_the_report_says_what_the_gateway_reads(environment: Environment) -> None:
    """One file, replaced in one step."""
    lease(environment)
    write_busy_kernels(environment, [{"execution_state": "busy"}, {"execution_state": "idle"}])
    for _ in range(2):
        note_refusal(environment.scratch)
    status_reporter.write_report(environment, 12.34)
    report = json.loads((environment.run_folder / "status.json").read_text())
    assert abs(report.pop("at") - time.time()) < 30
    assert abs(report.pop("refused_at") - time.time()) < 30
    expected = {"version": 1, "cpu_percent": 12.3, "busy_kernels": 1, "gpu_error": "", "refused_logins": 2}
    assert report == expected
    assert [path.name for path in environment.run_folder.iterdir()] == ["status.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"at": 5, "busy": 3}', '{"at": "now"}'])
def test_kernels_nobody_spoke_of_lately_are_not_busy(environment: Environment, text: str) -> None:
    """The notebook server is gone, or its file is damaged."""
    kernels_file(environment).write_text(text)
    assert read_busy_kernels(environment) == 0


def test_work_is_seen_and_rest_is_not(start: Callable[[str, str], "subprocess.Popen[str]"]) -> None:
    """A loop takes most of a CPU; the same process asleep takes none of it."""
    working = start("train.py", "print('ready', flush=True)\nwhile True: pass")
    meter = CpuMeter()
    key = next(key for key in meter.seconds if key[0] == working.pid)
    wait_for(lambda: meter.read()[key] > meter.seconds[key] + 0.2)
    assert meter.percent() > 1
    working.send_signal(signal.SIGSTOP)
    wait_for(lambda: "\nState:\tT" in Path(f"/proc/{working.pid}/status").read_text())
    rested = meter.read()[key]
    assert [meter.read()[key] for _look in range(20)] == [rested] * 20


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["python", "-I", "-m", "devgw_environment", "listen"], True),
        (["python", "-s", "-m", "jupyterlab", "--config=x"], True),
        (["sshd: alice [priv]"], True),
        (["python", "-m", "ipykernel_launcher", "-f", "k.json"], False),
        (["python", "train.py"], False),
    ],
)
def test_the_environments_own_processes_are_no_use(words: list[str], own: bool) -> None:
    """A notebook server that waits is not somebody at work; its kernels may be."""
    assert is_own("\0".join(words).encode()) is own


def test_only_runners_that_catch_the_signal_get_it(
    start: Callable[[str, str], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """SIGUSR1 would end whoever does not wait for it; runners of other tests on this host are not looked at."""
    catching, deaf, other = start("devgw-run", CATCHES), start("devgw_runner", IGNORES), start("train.py", CATCHES)
    seen = tmp_path / "proc"
    seen.mkdir()
    for process in (catching, deaf, other):
        (seen / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    assert status_reporter.ask_runners(seen) == [catching.pid]
    assert catching.wait(10) == 7
    assert (deaf.poll(), other.poll()) == (None, None)


def test_a_notice_to_save_runs_the_stop_hook_once(environment: Environment) -> None:
    """The status reporter runs as in an environment; a notice without `save` changes nothing, a second look neither."""
    hook = environment.home / ".config" / "devgw" / "before-stop"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\necho saved >> saved\n")
    hook.chmod(0o755)
    variables = {
        **os.environ, "PYTHONPATH": str(SOURCES), "HOME": str(environment.home),
        "DEVGW_RUN_FOLDER": str(environment.run_folder), "DEVGW_CONFIG_FOLDER": str(environment.config_folder),
    }  # fmt: skip
    code = "from devgw_environment import status_reporter as l, __main__ as m; "
    code += "l.LOOK_SECONDS = 0.05; l.REPORT_SECONDS = 0.1; "
    code += f"l.ask_runners.__defaults__ = (l.Path({str(environment.scratch)!r}),); "  # no runner of another test's
    code += "l.run_status_reporter(l.Environment.from_process())"
    process = subprocess.Popen([sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True)
    saved = environment.home / "saved"
    try:
        tell(environment, save=False)
        wait_for((environment.run_folder / "status.json").exists)
        assert not saved.exists()
        tell(environment, save=True)
        wait_for(saved.exists)
        (environment.run_folder / "status.json").unlink()
        wait_for((environment.run_folder / "status.json").exists)
        assert saved.read_text() == "saved\n"
    finally:
        process.kill()
        written, _ = process.communicate(timeout=60)
    assert "environment.saving" in written


def tell(environment: Environment, *, save: bool) -> None:
    notice = environment.config_folder / "notice.json"
    fresh = notice.with_suffix(".new")
    fresh.write_text(json.dumps({"version": 1, "reason": "its GPU lease ends", "stop_at": 1.0, "save": save}))
    fresh.rename(notice)
