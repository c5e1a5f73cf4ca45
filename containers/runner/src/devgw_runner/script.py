"""Execute a training script or module as if it had been started by itself, or only find its Task."""

import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devgw_runner.entry import interception, run
from devgw_runner.errors import TaskError, UsageError
from devgw_runner.task import Task


class _Found(Exception):  # noqa: N818 - it carries an answer out of the script, not an error
    def __init__(self, task_type: type[Task[Any]]) -> None:
        super().__init__()
        self.task_type = task_type


def is_module_path(target: str) -> bool:
    """Say whether `target` means `package.module:Task` rather than a file."""
    return ":" in target and not target.endswith(".py")


def run_target(target: str, arguments: Sequence[str]) -> int:
    """Run a script or a module's task with `arguments`; return the exit code.

    Raises:
        UsageError: the file or the module is not there.
        TaskError: the script never called `run`.
    """
    sys.argv = [target, *arguments]
    if is_module_path(target):
        return run(_import_task(target), list(arguments))
    _require_script(target)
    sys.path.insert(0, str(Path(target).resolve().parent))
    try:
        runpy.run_path(target, run_name="__main__")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    raise TaskError(
        f"{target} ended without calling run(YourTask)",
        "end it with run(YourTask), or start it by 'devgw-run --wrap -- python ...'",
    )


def find_task(target: str) -> type[Task[Any]]:
    """Return the Task that a script gives to `run`, without training it.

    Raises:
        UsageError, TaskError: as `run_target`.
    """
    if is_module_path(target):
        return _import_task(target)
    _require_script(target)

    def carry_out(task_type: type[Task[Any]], _arguments: Sequence[str]) -> None:
        raise _Found(task_type)

    token = interception.set(carry_out)
    arguments, sys.argv = sys.argv, [target]
    sys.path.insert(0, str(Path(target).resolve().parent))
    try:
        runpy.run_path(target, run_name="__main__")
    except _Found as found:
        return found.task_type
    finally:
        interception.reset(token)
        sys.argv = arguments
    raise TaskError(f"{target} never calls run(YourTask)", "end it with run(YourTask)")


def _require_script(target: str) -> None:
    if not Path(target).is_file():
        raise UsageError(f"there is no script {target}", "devgw-run train.py --batch-size 64")


def _import_task(target: str) -> type[Task[Any]]:
    module_name, _, class_name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as exc:
        raise UsageError(f"there is no {class_name} in {module_name}", "name it as package.module:Task") from exc
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise TaskError(f"{target} is not a Task", "derive your class from devgw_runner.Task")
    return found
