"""`devgw-run evaluate` and `predict`: a trained model's means over a split, and its outputs in a file."""

import json
from collections.abc import Sequence
from pathlib import Path

from devgw_runner.commands.arguments import CommandParser
from devgw_runner.commands.checkpoints import resolve_checkpoint
from devgw_runner.prediction import evaluate as evaluate_split
from devgw_runner.prediction import predict as predict_split
from devgw_runner.trained import load_trained

REPORT_VERSION = 1


def evaluate(arguments: Sequence[str]) -> int:
    """Print the means of loss and metrics."""
    parser = _parser("evaluate", "compute loss and metrics of a checkpoint over a split; further flags are the task's")
    parser.add_argument("--split", default="val", help="what Task.data is asked for (default: val)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options, task_arguments = parser.parse_known_args(arguments)
    trained = load_trained(options.script, resolve_checkpoint(options.checkpoint, best=options.best), task_arguments)
    means, samples = evaluate_split(trained, options.split)
    if options.output == "json":
        report = {
            "version": REPORT_VERSION,
            "checkpoint": str(trained.checkpoint),
            "step": trained.step,
            "split": options.split,
            "samples": samples,
            "metrics": means,
        }
        print(json.dumps(report, indent=1))
        return 0
    print(f"{trained.checkpoint.name}  {options.split}  {samples} samples")
    for name, value in means.items():
        print(f"{name}  {value:.6g}")
    return 0


def predict(arguments: Sequence[str]) -> int:
    """Write outputs for every sample of a split."""
    parser = _parser("predict", "write a checkpoint's outputs over a split to a file; further flags are the task's")
    parser.add_argument("--split", default="test", help="what Task.data is asked for (default: test)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors, .npz or .jsonl"
    )
    options, task_arguments = parser.parse_known_args(arguments)
    trained = load_trained(options.script, resolve_checkpoint(options.checkpoint, best=options.best), task_arguments)
    samples = predict_split(trained, options.split, options.output)
    print(f"wrote outputs of {trained.checkpoint.name} for {samples} samples to {options.output}")
    return 0


def _parser(command: str, description: str) -> CommandParser:
    parser = CommandParser(command, description)
    parser.add_argument("script", help="the training script, or package.module:Task")
    parser.add_argument("--checkpoint", type=Path, required=True, help="one checkpoint, or a run's directory (newest)")
    parser.add_argument("--best", action="store_true", help="of a run's directory the best by --monitor")
    return parser
