"""Fixtures of the runner's tests: a place to write, settings that write there, processes that end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(SCRIPTS))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "mutants"))

from exact_seed import SEED  # noqa: E402 - found by the path above

DEADLINE_SECONDS = 240
"""How long one step of a test waits, within the limit of the whole test that stands in pyproject.toml. It ends what
hangs; it measures nothing, for two whole runs may share the machine."""
SLOW_SECONDS = 1200
"""The limit of a test marked `slow`, and a half of it one step's."""
_LEFT_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


def pytest_configure() -> None:
    """Let the processes that tests start hear every signal, also where `nohup` or a shell's `&` had them ignored.

    An ignored signal stays ignored in a child, a handled one does not (POSIX exec). So a handler that does nothing
    takes the place of `ignore`: this process goes on hearing nothing, as whoever started it wished.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_IGNORED)
    for number in _LEFT_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep each test's files in its own directory, and torch's global switches as they were."""
    for name in [name for name in os.environ if name.startswith("DEVGW_TRAIN_")]:
        monkeypatch.delenv(name)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.delenv(name, raising=False)  # torch itself leaves the first one in our environment
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEVGW_TRAIN_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("DEVGW_TRAIN_LOG_DIR", str(tmp_path / "logs"))
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One compile cache for the whole session: the second compilation of the same code is warm."""
    return tmp_path_factory.mktemp("compile-cache")


@pytest.fixture(autouse=True)
def _shared_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVGW_TRAIN_CACHE_DIR", str(shared_cache))


def pytest_report_header() -> str:
    return f"EXACT_SEED={SEED} repeats the sample of the exact-resume tests"


class RunPaths:
    """Where a run of the tiny task in this test writes."""

    def __init__(self, root: Path, run: str = "tiny") -> None:
        self.checkpoints = root / "checkpoints" / run
        self.logs = root / "logs" / run

    def records(self, kind: str = "train") -> list[dict]:
        path = self.logs / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def events(self, name: str | None = None) -> list[dict]:
        path = self.logs / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if name in {None, event["event"]}]

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, oldest first."""
        return sorted(int(path.name.split(".")[0].removeprefix("step-")) for path in self.checkpoints.glob("step-*"))


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


@pytest.fixture
def devgw_run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start `devgw-run …` as a process; those still alive at the end are killed by their pid."""
    started: list[subprocess.Popen] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "devgw_runner", *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


@pytest.fixture
def deadline_seconds(request: pytest.FixtureRequest) -> float:
    if limit := os.environ.get("STEP_SECONDS"):  # a planted bug may hang, and need not do so for ten minutes
        return float(limit)
    return SLOW_SECONDS / 2 if request.node.get_closest_marker("slow") else DEADLINE_SECONDS


@pytest.fixture
def finished(
    devgw_run: Callable[..., subprocess.Popen], deadline_seconds: float
) -> Callable[..., subprocess.CompletedProcess]:
    """Run `devgw-run …` to its end."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = devgw_run(*arguments, **environment)
        out, err = process.communicate(timeout=deadline_seconds)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


@pytest.fixture
def poll(deadline_seconds: float) -> Callable[[Callable[[], bool], str], None]:
    """Wait until a condition holds, or fail at the deadline."""

    def wait(condition: Callable[[], bool], what: str, seconds: float = deadline_seconds) -> None:
        deadline = time.monotonic() + seconds
        pause = 0.01
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(pause)

    return wait


@pytest.fixture
def tiny_script() -> Path:
    return SCRIPTS / "tiny.py"


@pytest.fixture
def examples() -> Path:
    return EXAMPLES
