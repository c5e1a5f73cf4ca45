"""`devgw-run find-lr train.py`: a range test of the learning rate, which saves nothing and changes no run."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from devgw_runner.build import assemble
from devgw_runner.commands.arguments import CommandParser
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import read_config
from devgw_runner.environment import prepare_compiler_environment
from devgw_runner.errors import UsageError
from devgw_runner.learning_rate_range import RangeTest, rates_between, run_range_test
from devgw_runner.measure import find_device
from devgw_runner.parallel.world import World
from devgw_runner.paths import RunPaths, cache_root
from devgw_runner.probe import close_data, prepare
from devgw_runner.script import find_task
from devgw_runner.signals import Signals
from devgw_runner.state import RunState
from devgw_runner.step import optimizer_step
from devgw_runner.task import Task, check_task, counting_samples

REPORT_VERSION = 1
NAME = "find-lr"
# What a range test does without: it compiles nothing, looks at no validation data's metric and tells nobody.
QUIET = {
    "resume": "off",
    "compile": "off",
    "graphs": "off",
    "nan": "ignore",
    "early_stop": 0,
    "checkpoint_best": 0,
    "checkpoint_every": 0,
    "monitor": "loss",
    "profile": 0,
    "explain": False,
    "csv": False,
    "tensorboard": False,
    "prometheus": "off",
    "logger": "off",
    "logger_secrets": None,
}


def run(arguments: Sequence[str]) -> int:
    """Raise the learning rate from step to step and say where the loss falls steepest."""
    parser = CommandParser(NAME, "find a learning rate by a range test; further flags are the task's")
    parser.add_argument("script", help="the training script, or package.module:Task")
    parser.add_argument("--from", dest="smallest", type=float, default=1e-7, help="first rate (default: 1e-7)")
    parser.add_argument("--to", dest="largest", type=float, default=10.0, help="last rate (default: 10)")
    parser.add_argument("--count", type=int, default=100, help="steps (default: 100)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options, task_arguments = parser.parse_known_args(arguments)
    if not 0 < options.smallest < options.largest or options.count < 20:
        raise UsageError("the rates must rise, in at least 20 steps", "for example --from 1e-6 --to 1 --count 100")
    task_type = find_task(options.script)
    config = read_config(task_type.config, task_arguments, os.environ)
    rates = rates_between(options.smallest, options.largest, options.count)
    found = find_learning_rate(task_type(), config, rates)
    if options.output == "json":
        report = {"version": REPORT_VERSION, "suggestion": found.suggestion, "diverged_at": found.diverged_at}
        print(json.dumps(report | {"points": [point.to_json() for point in found.points]}, indent=1))
    else:
        print(describe(found))
    return 0


def find_learning_rate(task: Task, config: TrainConfig, rates: list[float]) -> RangeTest:  # type: ignore[type-arg]  # any task's
    """Train one step with each rate, in a place of its own that is gone afterwards."""
    check_task(task)
    with tempfile.TemporaryDirectory(prefix="devgw-find-lr-") as place, counting_samples(task):
        root = Path(place)
        paths = RunPaths(NAME, config.data_dir, root / "checkpoints", root / "logs", config.cache_dir or cache_root())
        for path in (paths.checkpoints, paths.logs):
            path.mkdir()
        prepare_compiler_environment(paths.cache)
        quiet = config.model_copy(update={**QUIET, "steps": len(rates)})
        prepared = prepare(task, quiet, paths, World(), find_device(config.device, 0))
        try:
            with Signals(owns_process=False).installed() as signals:
                training, _ = assemble(prepared, signals)
                try:
                    return _train_through(training, rates)
                finally:
                    training.close()
        finally:
            close_data(prepared.data)


def describe(found: RangeTest) -> str:
    """Say what was found, in one or two lines."""
    end = f"; the loss runs away at {found.diverged_at:.2g}" if found.diverged_at is not None else ""
    if found.suggestion is None:
        return f"no suggestion: the loss never fell{end}"
    return f"suggested learning rate {found.suggestion:.2g}: there the loss falls steepest{end}"


def _train_through(training: RunState, rates: list[float]) -> RangeTest:
    groups = training.state.optimizer.param_groups
    first = float(groups[0]["lr"])
    shares = [float(group["lr"]) / first if first else 1.0 for group in groups]
    training.state.model.train()

    def step(rate: float) -> float:
        for group, share in zip(training.state.optimizer.param_groups, shares, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share
        loss, _ = optimizer_step(training, next(training.batches))
        return float(loss)

    return run_range_test(rates, step)
