"""`devgw-run sweep train.py`: many runs of one task, each with other settings, the best of them named at the end."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devgw_runner.checkpoint.lock import only_writer
from devgw_runner.commands.arguments import CommandParser
from devgw_runner.config_sources import flag_of, read_config
from devgw_runner.environment import prepare_compiler_environment
from devgw_runner.errors import RunnerError, UsageError
from devgw_runner.monitor import choose_mode
from devgw_runner.parallel.world import World
from devgw_runner.paths import cache_root, checkpoints_root, logs_root, prove_writable
from devgw_runner.script import find_task
from devgw_runner.sweep.search import SearchSettings, places_of, search, visible_devices
from devgw_runner.sweep.space import NOT_TO_TRY, flags_for, read_space
from devgw_runner.sweep.study import Aim, Ended, Study, import_optuna
from devgw_runner.sweep.trial_process import TRAIN_PREFIX

REPORT_VERSION = 1


@dataclass(frozen=True)
class Sweep:
    """What one line of `devgw-run sweep` asks for, checked."""

    name: str
    aim: Aim
    settings: SearchSettings
    task_arguments: list[str]
    command: tuple[str, ...]
    checkpoints: Path
    logs: Path


def run(arguments: Sequence[str]) -> int:
    """Try settings until there are enough trials, and say which were best."""
    options, task_arguments = _parser().parse_known_args(arguments)
    import_optuna()
    sweep = _read(options, task_arguments)
    places = places_of(sweep.name, sweep.checkpoints, sweep.logs, sweep.command)
    prove_writable(places.checkpoints, "checkpoints")
    prove_writable(places.logs, "logs")

    def tell(ended: Ended) -> None:
        print(
            describe(ended, sweep.aim.metric), file=sys.stderr if options.output == "json" else sys.stdout, flush=True
        )

    with only_writer(places.checkpoints, World()):
        study = Study(
            places.checkpoints, sweep.aim, sampler=options.sampler, prune=options.prune, seed=options.sampler_seed
        )
        code = search(study, places, sweep.settings, tell)
        ended, best = study.ended(), study.best()
    if options.output == "json":
        print(json.dumps(report(sweep, ended, best), indent=1))
    if code != 0:
        print(f"stopped after {len(ended)} of {options.trials} trials; the same line goes on", file=sys.stderr)
        return code
    if best is None:
        raise RunnerError(f"none of {len(ended)} trials gave a value", f"their outputs are below {places.logs}")
    if options.output == "table":
        print(f"best of {len(ended)}: {describe(best, sweep.aim.metric)}")
        line = ["devgw-run", *sweep.command, *flags_for(best.values)]
        print(f"train with it: {shlex.join(line)}")
    return 0


def describe(ended: Ended, metric: str) -> str:
    """Say in one line what was tried and what came of it."""
    tried = " ".join(f"{name}={_short(value)}" for name, value in ended.values.items())
    result = f"{metric} {ended.value:.6g}" if ended.value is not None else f"{ended.state}: {ended.reason}"
    return f"{ended.run}  {result}  {tried}"


def report(sweep: Sweep, ended: list[Ended], best: Ended | None) -> dict[str, Any]:
    """Return the sweep as one object."""
    return {
        "version": REPORT_VERSION,
        "name": sweep.name,
        "metric": sweep.aim.metric,
        "mode": sweep.aim.mode,
        "best": best.to_json() if best else None,
        "trials": [trial.to_json() for trial in ended],
    }


def _parser() -> CommandParser:
    parser = CommandParser(
        "sweep", "run a task with many settings; further flags are the task's, the same in each trial"
    )
    parser.add_argument("script", help="the training script, or package.module:Task")
    parser.add_argument("--space", type=Path, metavar="FILE", help="YAML: name: {low, high, log, step}, or a list")
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="NAME=RANGE",
        help="LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP, or values with commas; may stand several times",
    )
    parser.add_argument("--metric", default="loss", help="evaluation metric, or train/NAME (default: loss)")
    parser.add_argument(
        "--mode", choices=["auto", "min", "max"], default="auto", help="by default by the metric's name"
    )
    parser.add_argument("--trials", default="20", help="trials in all, those of earlier starts too (default: 20)")
    parser.add_argument("--jobs", default="1", help="trials at once (default: 1)")
    parser.add_argument("--nproc", help="processes of each trial")
    parser.add_argument("--name", help="name of the sweep and of its directories (default: the script's, and -sweep)")
    parser.add_argument(
        "--sampler", choices=["tpe", "random"], default="tpe", help="how values are drawn (default: tpe)"
    )
    parser.add_argument("--sampler-seed", default="0", help="seed of the drawing (default: 0)")
    parser.add_argument(
        "--no-prune", dest="prune", action="store_false", help="let trials that fall behind the median end too"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser


def _read(options: Any, task_arguments: list[str]) -> Sweep:
    """Check the whole line before the first trial starts."""
    for name in ("trials", "jobs", "nproc", "sampler_seed"):
        value = getattr(options, name)
        least = 0 if name == "sampler_seed" else 1
        if value is not None and not (str(value).isdecimal() and int(value) >= least):
            raise UsageError(f"{flag_of(name)} {value} makes no sense", f"a number, {least} or more")
        setattr(options, name, None if value is None else int(value))
    kind = find_task(options.script).config
    space = read_space(options.space, options.tried, kind)
    given = {word.partition("=")[0] for word in task_arguments if word.startswith("--")}
    for name in [*space, *NOT_TO_TRY - {"checkpoint_dir", "log_dir", "cache_dir"}]:
        if flag_of(name) in given:
            why = "is among the settings to try too" if name in space else "is chosen for each trial by the sweep"
            raise UsageError(f"{flag_of(name)} {why}", "leave it out, or choose --name for the sweep")
    config = read_config(kind, task_arguments, os.environ)
    stem = options.script.rpartition(":")[2].lower() if ":" in options.script else Path(options.script).stem
    name = options.name or f"{stem}-sweep"
    _check_name(name)
    mode = choose_mode(options.metric.removeprefix(TRAIN_PREFIX), options.mode)
    processes = [] if options.nproc is None else ["--nproc", str(options.nproc)]
    prepare_compiler_environment((config.cache_dir or cache_root()).absolute())
    return Sweep(
        name=name,
        aim=Aim(str(options.script), options.metric, mode, space),
        settings=SearchSettings(options.trials, options.jobs, options.metric, mode, _devices(options.jobs)),
        task_arguments=task_arguments,
        command=(*processes, options.script, *task_arguments),
        checkpoints=config.checkpoint_dir or checkpoints_root(),
        logs=config.log_dir or logs_root(),
    )


def _check_name(name: str) -> None:
    """A sweep's name is a directory's: no path, nothing that a run could not be called."""
    letters = name.replace("-", "").replace("_", "").replace(".", "")
    if not (letters.isalnum() and letters.isascii() and name[0].isalnum() and len(name) <= 64):
        raise UsageError(f"--name {name} is no name of a directory", "letters, digits, '-', '_' and '.'")


def _devices(jobs: int) -> tuple[str, ...]:
    import torch

    return visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count(), jobs)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
