"""`run(MyTask)`: from settings to exit code. What a script, devgw-run, torchrun and a notebook all call."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import torch

from devgw_runner.build import assemble
from devgw_runner.checkpoint.lock import only_writer
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import read_config
from devgw_runner.environment import prepare_compiler_environment
from devgw_runner.errors import (
    DISK_FULL_ERRNOS,
    READ_ONLY_ERRNOS,
    OutOfMemoryError,
    RunnerError,
    TaskError,
    storage_error,
)
from devgw_runner.jobs.registry import registered_run
from devgw_runner.loop import train
from devgw_runner.measure import find_device
from devgw_runner.parallel.launcher import ending_with, find_launcher
from devgw_runner.parallel.waiting import OF_AN_EXCHANGE
from devgw_runner.parallel.world import (
    World,
    end_group_threads,
    failed_by_another,
    join_world,
    leave_world,
    others_failure,
)
from devgw_runner.paths import RunPaths, find_paths, prepare_paths
from devgw_runner.probe import Prepared, close_data, prepare, script_name
from devgw_runner.resources import usable_cpus
from devgw_runner.signals import Signals
from devgw_runner.task import Task, check_task, counting_samples

Interception = Callable[[type[Task[Any]], Sequence[str]], None]
# Set by commands that need a script's task without training it (feature-maps).
interception: ContextVar[Interception | None] = ContextVar("interception", default=None)


class RunStoppedError(RunnerError):
    """A run in a notebook ended with another code than 0."""

    code = "stopped"


def run(task_type: type[Task[Any]], arguments: Sequence[str] | TrainConfig | None = None) -> int:
    """Train `task_type` with the settings of the command line, or with those given.

    In a script this exits the process with the run's code. With a TrainConfig (a notebook) it returns 0
    or raises a RunnerError. Exit codes: `docs/reference/runner-contract.md`.
    """
    intercept = interception.get()
    if intercept is not None:
        intercept(task_type, sys.argv[1:])
        return 0
    if isinstance(arguments, TrainConfig):
        return _run_in_process(task_type, arguments)
    owns_process = arguments is None and not _is_in_kernel()
    given = sys.argv[1:] if arguments is None else arguments
    code = guarded(lambda: _run(task_type, given, owns_process=owns_process))
    end_group_threads()
    if arguments is None:
        sys.exit(code)
    return code


def guarded(action: Callable[[], int]) -> int:
    """Run `action`, print a RunnerError as error and hint, and return the exit code."""
    try:
        return action()
    except RunnerError as exc:
        return report_failure(exc)
    except torch.OutOfMemoryError as exc:
        size = "a smaller --batch-size or --micro-batch"
        return report_failure(OutOfMemoryError(f"out of device memory: {str(exc).splitlines()[0]}", f"choose {size}"))
    except OSError as exc:
        with suppress(OSError):  # the output may lie on the volume that is full
            traceback.print_exc()
        told = exc.errno in READ_ONLY_ERRNOS | DISK_FULL_ERRNOS
        return report_failure(storage_error(exc, "running the task")) if told else 1


def report_failure(exc: RunnerError) -> int:
    """Print the two lines that every failure has, and return its exit code."""
    with suppress(OSError):  # the output may lie on the volume that is full
        print(f"devgw-run: error: {exc.message}", file=sys.stderr)
        print(f"devgw-run: hint: {exc.hint}", file=sys.stderr)
    return exc.exit_code


def _run(task_type: type[Task[Any]], arguments: Sequence[str], *, owns_process: bool) -> int:
    if arguments and set(arguments) & {"-h", "--help"}:
        from devgw_runner.config_sources import build_parser

        build_parser(task_type.config).print_help()
        return 0
    return _train(task_type, read_config(task_type.config, arguments, os.environ), owns_process=owns_process)


def _run_in_process(task_type: type[Task[Any]], config: TrainConfig) -> int:
    code = _train(task_type, config, owns_process=False)
    if code != 0:
        raise RunStoppedError(f"the run stopped with code {code}", "call run again to resume it")
    return code


def _train(task_type: type[Task[Any]], config: TrainConfig, *, owns_process: bool) -> int:
    if not (isinstance(task_type, type) and issubclass(task_type, Task)):
        raise TaskError(f"run was given {task_type!r}", "call run(YourTask) with the class")
    task = task_type()
    check_task(task)
    paths = find_paths(config, script_name(task))
    if not config.explain:
        prepare_paths(paths)
    prepare_compiler_environment(paths.cache)
    torch.set_num_threads(max(1, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    device = find_device(config.device, int(os.environ.get("LOCAL_RANK", "0")))
    signals = Signals(owns_process=owns_process)
    with ending_with(find_launcher(), signals.send):
        return _join_and_train(task, config, paths, device, signals)


def _join_and_train(
    task: Task[Any], config: TrainConfig, paths: RunPaths, device: torch.device, signals: Signals
) -> int:
    world = join_world(device.type, config.tensor_parallel, config.group_timeout_seconds)
    try:
        with counting_samples(task):
            return _train_in_world(task, config, paths, world, device, signals)
    except OF_AN_EXCHANGE as exc:
        if not failed_by_another(exc):
            raise
        raise others_failure(exc, world) from exc
    finally:
        torch.compiler.set_stance("default")
        leave_world()


def _train_in_world(
    task: Task[Any], config: TrainConfig, paths: RunPaths, world: World, device: torch.device, signals: Signals
) -> int:
    with only_writer(paths.checkpoints, world, enabled=not config.explain):
        return _train_alone(task, config, paths, world, device, signals)


def _train_alone(
    task: Task[Any], config: TrainConfig, paths: RunPaths, world: World, device: torch.device, signals: Signals
) -> int:
    prepared = prepare(task, config, paths, world, device)
    try:
        if not config.explain:
            return _train_prepared(prepared, signals)
        if world.is_main:
            print(prepared.plan.explain())
        return 0
    finally:
        close_data(prepared.data)


def _train_prepared(prepared: Prepared, signals: Signals) -> int:
    with signals.installed(), registered_run(prepared.paths, enabled=prepared.world.is_main):
        training, warm_batch = assemble(prepared, signals)
        try:
            code = train(training, warm_batch)
        except BaseException:
            with suppress(RunnerError):  # what went wrong first is what the user must know
                training.close()
            raise
        training.close()
        return code


def _is_in_kernel() -> bool:
    """Say whether IPython runs this process: then it is the notebook's, also under %run."""
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None
