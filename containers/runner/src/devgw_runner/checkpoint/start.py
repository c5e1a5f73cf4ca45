"""Where a run begins, decided by one process for all, and whether the run is under way already.

Under torchrun all processes start again after a failure, and when nodes come or go, with the words that stood on the
first line. `--resume off` and `--resume PATH` were meant for the first start alone. torch's count of restarts does not
tell which one it is: it stays 0 where nodes come or go, and each node has a count of its own. So the launchers that
take part are recorded beside the checkpoints: where one of them was there before, the run goes on.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint import durable
from devgw_runner.checkpoint.resume import Start, find_start
from devgw_runner.errors import RunnerError
from devgw_runner.parallel.world import World

RECORD = "launchers.json"
RECORD_VERSION = 1


def agree_on_start(wish: str, root: Path, world: World, launcher: str) -> tuple[Start, tuple[str, ...]]:
    """Return where the run begins, and the launchers of its processes; the same in each of them.

    Raises:
        CheckpointError: the wish cannot be met; every process of the run raises it.
    """
    launchers = tuple(sorted({name for name in world.gather(launcher) if name}))
    answer: Start | tuple[type[RunnerError], str, str] | None = None
    if world.is_main:
        try:
            answer = find_start("auto" if is_under_way(root, launchers) else wish, root)
        except RunnerError as exc:  # with two arguments it cannot be sent as it is
            answer = (type(exc), exc.message, exc.hint)
    answer = world.from_main(answer)
    if isinstance(answer, tuple):
        kind, message, hint = answer
        raise kind(message, hint)
    assert answer is not None  # noqa: S101 - narrows a type: the main process has one
    return answer, launchers


def is_under_way(root: Path, launchers: Collection[str]) -> bool:
    """Say whether one of these launchers wrote the newest branch already."""
    return bool(set(launchers) & set(_read(root)))


def record_launchers(root: Path, launchers: Collection[str]) -> None:
    """Record who takes part, after the branch that they write was recorded."""
    if launchers:
        content: dict[str, Any] = {"version": RECORD_VERSION, "launchers": sorted(launchers)}
        durable.replace_file(root / RECORD, json.dumps(content, indent=1).encode())


def _read(root: Path) -> list[str]:
    try:
        return [str(name) for name in json.loads((root / RECORD).read_bytes())["launchers"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # nobody was here, or what was written cannot be read: the wish is taken as it is
