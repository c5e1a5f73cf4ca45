"""Branches of a run: which checkpoints continue one another, and which branch a plain start continues.

A run that starts anew or from a named checkpoint begins a branch. "Newest" and pruning stay within it, so that
what was reported saved is never lost to another line of the same directory.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint import durable
from devgw_runner.errors import CheckpointError

RECORD = "branches.json"
RECORD_VERSION = 1


@dataclass(frozen=True)
class Branch:
    """One line of checkpoints. `origin` is the checkpoint it began from, an absolute path; empty if anew.

    `lineage` names the branches before it with the step at which each was left, oldest first.
    """

    run: str = ""
    name: str = ""
    origin: str = ""
    lineage: tuple[tuple[str, int], ...] = ()


def new_run() -> Branch:
    """Return the first branch of a new run."""
    return Branch(run=secrets.token_hex(8), name=secrets.token_hex(4))


def branch_off(run: str, branch: str, lineage: tuple[tuple[str, int], ...], origin: Path, step: int) -> Branch:
    """Return a branch that begins at a checkpoint of another."""
    return Branch(
        run=run or secrets.token_hex(8),
        name=secrets.token_hex(4),
        origin=str(origin.absolute()),
        lineage=(*lineage, (branch, step)),
    )


def read_current(root: Path) -> Branch | None:
    """Return the branch that a plain start continues, None where none was recorded.

    Raises:
        CheckpointError: the record is damaged.
    """
    try:
        raw = json.loads((root / RECORD).read_bytes())
        current = raw["branches"][-1]
        lineage = tuple((str(name), int(step)) for name, step in current["lineage"])
        return Branch(**(current | {"lineage": lineage}))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, IndexError) as exc:
        raise CheckpointError(
            f"the record of branches {root / RECORD} is damaged",
            "name a checkpoint with --resume PATH, or --resume off starts anew",
        ) from exc


def record(root: Path, branch: Branch) -> None:
    """Make `branch` the one that a plain start continues; the file is replaced as a whole."""
    known: list[dict[str, Any]] = []
    try:
        known = json.loads((root / RECORD).read_bytes())["branches"]
    except (OSError, ValueError, TypeError, KeyError):
        known = []  # nothing was recorded yet, or what was cannot be read
    if known and known[-1].get("name") == branch.name:
        return
    content = {"version": RECORD_VERSION, "branches": [*known, asdict(branch)]}
    durable.replace_file(root / RECORD, json.dumps(content, indent=1).encode())
