"""`devgw-run checkpoints` and `export`: what was saved, whether it is intact, and its weights."""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.export import names_kept_by_task, read_weights, write_weights
from devgw_runner.checkpoint.resume import newest_of_run
from devgw_runner.commands.arguments import CommandParser
from devgw_runner.errors import CheckpointError, UsageError

FORMATS = ("safetensors", "torch", "onnx", "triton")


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
            print(f"{row['name']}  {row['bytes'] / 2**20:.1f} MiB  {row['state']}{_monitored_words(row)}{branch}")
    return 0 if all(row["state"] == "intact" for row in rows) else CheckpointError.exit_code


def export(arguments: Sequence[str]) -> int:
    """Write a checkpoint's weights as safetensors, or with a script its model in another format."""
    parser = CommandParser("export", "write a checkpoint's weights, or with a script the model itself, to a file")
    parser.add_argument("script", nargs="?", help="the training script, or package.module:Task; for a model")
    parser.add_argument("--checkpoint", type=Path, required=True, help="one checkpoint, or a run's directory (newest)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--best", action="store_true", help="of a run's directory the best by --monitor")
    parser.add_argument("--format", choices=FORMATS, default="safetensors", help="safetensors are weights alone")
    parser.add_argument("--split", default="val", help="whose first samples the model is traced with (default: val)")
    options, task_arguments = parser.parse_known_args(arguments)
    if options.format != "safetensors":
        return _export_model(options, task_arguments)
    if options.script is not None:
        return _export_evaluated(options, task_arguments)
    if task_arguments:
        raise UsageError(f"unrecognized arguments: {' '.join(task_arguments)}", "'devgw-run export --help' shows them")
    checkpoint = resolve_checkpoint(options.checkpoint, best=options.best)
    weights = read_weights(checkpoint)
    write_weights(weights, checkpoint, options.output)
    print(f"wrote {len(weights)} tensors of {checkpoint.name} to {options.output}")
    if kept := names_kept_by_task(checkpoint):
        print(
            f"devgw-run: note: these are the model's own; the task keeps {', '.join(kept)} beside it: with the script, "
            "'devgw-run export train.py …', what it evaluates with is written",
            file=sys.stderr,
        )
    return 0


def _export_evaluated(options: Namespace, task_arguments: Sequence[str]) -> int:
    from devgw_runner.trained import load_trained

    trained = load_trained(options.script, resolve_checkpoint(options.checkpoint, best=options.best), task_arguments)
    weights = trained.weights
    write_weights(weights, trained.checkpoint, options.output)
    whose = type(trained.model).__name__
    print(f"wrote {len(weights)} tensors of {trained.checkpoint.name} ({whose}) to {options.output}")
    return 0


def _export_model(options: Namespace, task_arguments: Sequence[str]) -> int:
    if options.script is None:
        raise UsageError(f"--format {options.format} needs the script", "devgw-run export train.py --checkpoint …")
    from devgw_runner.export_formats import export as export_model
    from devgw_runner.trained import load_trained

    trained = load_trained(options.script, resolve_checkpoint(options.checkpoint, best=options.best), task_arguments)
    done = export_model(trained, options.format, options.output, options.split)
    batch = "any batch size" if done.varying else "the batch size is fixed at 2"
    print(f"wrote {trained.checkpoint.name} as {options.format} to {done.path}; {batch}; ", end="")
    print(f"largest difference from the model {done.difference:.1e} of its largest output")
    return 0


def resolve_checkpoint(path: Path, *, best: bool = False) -> Path:
    """Return `path` if it is a checkpoint, or the newest one in it, or the best by the newest's metric.

    Raises:
        CheckpointError: there is none.
    """
    if (path / store.MANIFEST).is_file():
        return path
    newest = newest_of_run(path)
    if best and newest is not None:
        return _best(path, newest)
    if newest is None:
        raise CheckpointError(f"there is no checkpoint at {path}", "name a step directory or a run's directory")
    return newest


def _best(root: Path, newest: Path) -> Path:
    """Return the best of the newest's branch and of those it came from, by the metric that was monitored last."""
    manifest = store.read_manifest(newest)
    last_step = dict(manifest.lineage) | {manifest.branch: store.step_of(newest)}
    line = [path for path in store.list_checkpoints(root) if store.step_of(path) <= last_step.get(_branch(path), -1)]
    newest_metric = next((found for found in map(_monitored, line) if found), {})
    best = store.best_checkpoints(line, newest_metric, 1)
    if not best:
        raise CheckpointError(
            f"no checkpoint at {root} was evaluated", "train with --checkpoint-best 1, or name a step directory"
        )
    return best[0]


def _branch(path: Path) -> str:
    return store.branch_of(path) or ""


def _monitored(path: Path) -> dict[str, Any]:
    try:
        return store.read_manifest(path).monitored
    except CheckpointError:
        return {}


def _monitored_words(row: dict[str, Any]) -> str:
    seen = row["monitored"]
    return f"  {seen['name']} {seen['value']:.6g}" if seen else ""


def _row(path: Path) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in path.iterdir())
    branch: str | None
    try:
        branch = store.verify(path).branch
        state = "intact"
    except CheckpointError as exc:
        state, branch = exc.message, store.branch_of(path)
    seen = _monitored(path)
    at_this_step = {"name": seen["name"], "value": seen["value"]} if seen.get("step") == store.step_of(path) else None
    return {
        "name": path.name,
        "step": store.step_of(path),
        "bytes": size,
        "state": state,
        "branch": branch,
        "monitored": at_this_step,
    }
