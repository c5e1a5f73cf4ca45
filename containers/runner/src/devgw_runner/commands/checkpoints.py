"""`devgw-run checkpoints` and `export`: what was saved, whether it is intact, and its weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.export import export_weights
from devgw_runner.checkpoint.resume import newest_of_run
from devgw_runner.commands.arguments import CommandParser
from devgw_runner.errors import CheckpointError


def list_checkpoints(arguments: Sequence[str]) -> int:
    """Verify every checkpoint of a directory; 12 if one is corrupt."""
    parser = CommandParser("checkpoints", "list and verify the checkpoints of a run's directory")
    parser.add_argument("directory", type=Path)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    rows = [_row(path) for path in store.list_checkpoints(options.directory)]
    several = len({row["branch"] for row in rows}) > 1
    if options.output == "json":
        print(json.dumps({"version": 1, "checkpoints": rows}, indent=1))
    else:
        for row in rows:
            branch = f"  branch {row['branch']}" if several and row["branch"] else ""
            print(f"{row['name']}  {row['bytes'] / 2**20:.1f} MiB  {row['state']}{branch}")
    return 0 if all(row["state"] == "intact" for row in rows) else CheckpointError.exit_code


def export(arguments: Sequence[str]) -> int:
    """Write a checkpoint's weights as safetensors."""
    parser = CommandParser("export", "write a checkpoint's weights to a safetensors file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="one checkpoint, or a run's directory (newest)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    checkpoint = resolve_checkpoint(options.checkpoint)
    count = export_weights(checkpoint, options.output)
    print(f"wrote {count} tensors of {checkpoint.name} to {options.output}")
    return 0


def resolve_checkpoint(path: Path) -> Path:
    """Return `path` if it is a checkpoint, or the newest one in it.

    Raises:
        CheckpointError: there is none.
    """
    if (path / store.MANIFEST).is_file():
        return path
    newest = newest_of_run(path)
    if newest is None:
        raise CheckpointError(f"there is no checkpoint at {path}", "name a step directory or a run's directory")
    return newest


def _row(path: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in path.iterdir())
    branch: str | None
    try:
        branch = store.verify(path).branch
        state = "intact"
    except CheckpointError as exc:
        state, branch = exc.message, store.branch_of(path)
    return {"name": path.name, "step": store.step_of(path), "bytes": size, "state": state, "branch": branch}
