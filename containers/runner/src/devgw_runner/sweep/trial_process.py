"""One trial: a run of its own in a process of its own, followed by the metrics that it writes."""

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devgw_runner.errors import InUseError, TaskError, storage_error

OUTPUT = "output.log"
TRAIN_PREFIX = "train/"
STILL_HELD_SECONDS = 60.0
"""How long the directory may be held by a trial of a sweep that was killed: it saves and ends."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Places:
    """Where the runs of one sweep write, and the line that starts one but for its values and its name."""

    checkpoints: Path
    logs: Path
    command: tuple[str, ...]


class TrialProcess:
    """A started trial. `read` gives each value of the metric once, in the order of the steps."""

    def __init__(self, places: Places, run: str, flags: Sequence[str], metric: str, devices: str | None) -> None:
        self.run = run
        self._logs = places.logs / run
        where = [f"--run-name={run}", f"--checkpoint-dir={places.checkpoints}", f"--log-dir={places.logs}"]
        self._command = [*places.command, *flags, *where]
        self._metric = metric
        self._environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": devices} if devices is not None else {})
        self._read_bytes = 0
        self._held_since: float | None = None
        self._is_stopping = False
        self._process = self._start()

    @property
    def output(self) -> Path:
        return self._logs / OUTPUT

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs. A directory that is still held is waited for."""
        code = self._process.poll()
        if code != InUseError.exit_code or self._is_stopping:
            return code if code is None or code >= 0 else 128 - code
        self._held_since = self._held_since or time.monotonic()
        if time.monotonic() - self._held_since > STILL_HELD_SECONDS:
            return code
        self._process = self._start()
        return None

    def stop(self) -> None:
        """Ask it to save a checkpoint and to end."""
        self._is_stopping = True
        self._process.terminate()

    def kill(self) -> None:
        """End it and wait: it did not answer, or nobody follows it any more."""
        self._process.kill()
        self._process.wait()

    def read(self) -> list[tuple[int, float]]:
        """Return the step and the value of each record that came since the last call.

        Raises:
            TaskError: the run records other metrics.
        """
        found = []
        for record in self._new_records():
            kind, name = (
                ("train", self._metric.removeprefix(TRAIN_PREFIX)) if self._is_training else ("val", self._metric)
            )
            if record.get("kind") != kind:
                continue
            value = record.get("loss" if name == "loss" else f"metric_{name}")
            if value is None:
                raise _missing(self._metric, kind, record)
            found.append((int(record["step"]), float(value)))
        return found

    def last_words(self) -> str:
        """Return the error that the run printed, or its last line."""
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines() if self.output.exists() else []
        told = [line for line in lines if "error: " in line]
        last = (told or [line for line in lines if line.strip()] or ["it printed nothing"])[-1]
        return last.partition("error: ")[2] or last.strip()

    @property
    def _is_training(self) -> bool:
        return self._metric.startswith(TRAIN_PREFIX)

    def _new_records(self) -> list[dict[str, Any]]:
        try:
            with (self._logs / "metrics.jsonl").open("rb") as stream:
                stream.seek(self._read_bytes)
                content = stream.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with self.output.open("ab") as output:
                return subprocess.Popen(
                    [sys.executable, "-m", "devgw_runner", *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is the sweep's, which stops its trials once
                    preexec_fn=_end_with_the_sweep,  # noqa: PLW1509 - one prctl, no lock is taken
                )
        except OSError as exc:
            raise storage_error(exc, f"starting {self.run}") from exc


def best_of(values: Sequence[float], mode: str) -> float | None:
    """Return the best of the values that are numbers."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return None
    return min(numbers) if mode == "min" else max(numbers)


def _end_with_the_sweep() -> None:
    """Have the kernel stop this trial, with a checkpoint, where the sweep is killed (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _missing(metric: str, kind: str, record: dict[str, Any]) -> TaskError:
    names = ["loss", *(name.removeprefix("metric_") for name in record if name.startswith("metric_"))]
    prefix = TRAIN_PREFIX if kind == "train" else ""
    known = ", ".join(prefix + name for name in names)
    return TaskError(f"the run records no metric {metric}", f"it records {known}")
