"""The devgw training runner: a Task, a TrainConfig and `run`.

Names are resolved on first use, so that the preflight can be imported where torch is broken or absent.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devgw_runner.config import TrainConfig
    from devgw_runner.entry import run
    from devgw_runner.task import LossOut, Task

__all__ = ["LossOut", "Task", "TrainConfig", "run"]
__version__ = "0.1.0"

_HOME_OF = {
    "LossOut": "devgw_runner.task",
    "Task": "devgw_runner.task",
    "TrainConfig": "devgw_runner.config",
    "run": "devgw_runner.entry",
}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'devgw_runner' has no attribute {name!r}")
