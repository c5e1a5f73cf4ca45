"""The runs that are training right now, so that a lease's end can ask each for a checkpoint.

One file `<logs>/.runs/<pid>.json` per main process, removed when the run ends.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from devgw_runner.errors import storage_error
from devgw_runner.jobs.process import is_same_process, start_ticks
from devgw_runner.paths import RunPaths

RUNS_DIRECTORY = ".runs"


@dataclass(frozen=True)
class LiveRun:
    """One training main process."""

    run: str
    pid: int
    ticks: int
    checkpoints: str


@contextmanager
def registered_run(paths: RunPaths, *, enabled: bool) -> Iterator[None]:
    """Keep this process in the registry while the block runs."""
    if not enabled:
        yield
        return
    directory = paths.logs.parent / RUNS_DIRECTORY
    entry = directory / f"{os.getpid()}.json"
    live = LiveRun(paths.run, os.getpid(), start_ticks(os.getpid()) or 0, str(paths.checkpoints))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        entry.write_text(json.dumps(asdict(live)), encoding="utf-8")
    except OSError as exc:
        raise storage_error(exc, "registering the run") from exc
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)


def live_runs(logs_root: Path) -> list[LiveRun]:
    """Return the runs that are alive; entries of killed processes are removed."""
    found = []
    for entry in sorted((logs_root / RUNS_DIRECTORY).glob("*.json")):
        live = _read(entry)
        if live is not None and is_same_process(live.pid, live.ticks):
            found.append(live)
        else:
            entry.unlink(missing_ok=True)
    return found


def request_checkpoints(logs_root: Path) -> list[LiveRun]:
    """Send SIGUSR1 to every live run, and return them."""
    runs = live_runs(logs_root)
    for live in runs:
        os.kill(live.pid, signal.SIGUSR1)
    return runs


def _read(entry: Path) -> LiveRun | None:
    try:
        return LiveRun(**json.loads(entry.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
