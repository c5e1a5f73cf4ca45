"""What the training runner writes of a run, read from its user's own log directory (docs/reference/runner-contract.md).

The user may have put anything there: nothing is opened through a link, only regular files are read, and never more than
a piece of each.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

_RUNS_MAX, _ENTRIES_MAX, _LIVE_MAX = 50, 500, 64
_WHOLE_BYTES = 512 << 10
_PIECES, _PIECE_BYTES = 48, 8 << 10
"""Of a longer file: pieces from all over it, the last one at its end."""
_POINTS_MAX = 200
_NAME_MAX = 200


@dataclass(slots=True)
class RunSeen:
    """One run: the last record's numbers, and losses as (step, loss)."""

    name: str
    is_live: bool = False
    step: int = 0
    epoch: int = 0
    at: float = 0.0
    checkpoint_age_seconds: float | None = None
    samples_per_second: float | None = None
    train: list[tuple[int, float]] = field(default_factory=list)
    evaluated: list[tuple[int, float]] = field(default_factory=list)


def runs_in(logs: Path) -> list[RunSeen]:
    """Return the runs below a log directory, the one that wrote last first; none where there is no such directory."""
    found: list[RunSeen] = []
    with suppress(OSError), _directory(str(logs), None) as root:
        live = _live(root)
        with os.scandir(root) as entries:
            names = [entry.name for entry in islice(entries, _ENTRIES_MAX) if not entry.name.startswith(".")]
        for name in names:
            with suppress(OSError), _directory(name, root) as place, _regular_file("metrics.jsonl", place) as file:
                found.append(_seen(name[:_NAME_MAX], name in live, file))
    found.sort(key=lambda run: (-run.at, run.name))
    return found[:_RUNS_MAX]


def _seen(name: str, is_live: bool, file: int) -> RunSeen:
    run = RunSeen(name, is_live)
    for record in _records(file):
        step, loss, at = _number(record.get("step")), _number(record.get("loss")), _number(record.get("time"))
        if step is None or at is None:
            continue
        if loss is not None:
            (run.evaluated if record.get("kind") == "val" else run.train).append((int(step), loss))
        if at >= run.at:
            run.step, run.epoch, run.at = int(step), int(_number(record.get("epoch")) or 0), at
        if record.get("kind") == "train":
            run.checkpoint_age_seconds = _number(record.get("checkpoint_age_seconds"))
            run.samples_per_second = _number(record.get("samples_per_second"))
    run.train, run.evaluated = _thinned(run.train), _thinned(run.evaluated)
    return run


def _records(file: int) -> Iterator[dict[str, Any]]:
    size = os.fstat(file).st_size
    if size <= _WHOLE_BYTES:
        places = [(0, size)]
    else:
        last = size - _PIECE_BYTES
        places = [(last * number // (_PIECES - 1), _PIECE_BYTES) for number in range(_PIECES)]
    for begin, length in places:
        lines = os.pread(file, length, begin).split(b"\n")
        if begin:
            lines = lines[1:]  # its beginning stands in another piece
        for line in lines[:-1]:
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict):
                    yield record


def _live(root: int) -> set[str]:
    """Return the names of runs that registered themselves and have not ended."""
    names: set[str] = set()
    with suppress(OSError), _directory(".runs", root) as place, os.scandir(place) as entries:
        for entry in islice(entries, _LIVE_MAX):
            with suppress(OSError, ValueError, RecursionError), _regular_file(entry.name, place) as file:
                said = json.loads(os.read(file, 4096))
                if isinstance(said, dict):
                    names.add(str(said.get("run", "")))
    return names


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    points.sort()
    if len(points) <= _POINTS_MAX:
        return points
    return [points[place * (len(points) - 1) // (_POINTS_MAX - 1)] for place in range(_POINTS_MAX)]


def _number(value: object) -> float | None:
    """Return a number that can be shown: whatever a user wrote."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) and abs(value) < 1e15 else None
    return None


@contextmanager
def _directory(name: str, inside: int | None) -> Iterator[int]:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _regular_file(name: str, inside: int) -> Iterator[int]:
    """Open a file; a FIFO in its place must not make us wait (O_NONBLOCK). Raises: OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(name, flags, dir_fd=inside)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(name)
        yield descriptor
    finally:
        os.close(descriptor)
