"""A Jupyter server extension that writes down how many kernels are busy, for the report to the gateway."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from devgw_environment.contract import Environment

WRITE_MILLISECONDS = 5000
FRESH_SECONDS = 60.0


def kernels_file(environment: Environment) -> Path:
    """Where it is written."""
    return environment.scratch / "kernels.json"


def read_busy_kernels(environment: Environment) -> int:
    """How many kernels are busy; none where nobody has said so lately."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(kernels_file(environment).read_text())
        if abs(time.time() - float(document["at"])) < FRESH_SECONDS:
            return int(document["busy"])
    return 0


def write_busy_kernels(environment: Environment, kernels: list[dict[str, Any]]) -> None:
    """Write it in one step, so that a reader never sees half of it."""
    busy = sum(kernel.get("execution_state") == "busy" for kernel in kernels)
    fresh = kernels_file(environment).with_suffix(".new")
    fresh.write_text(json.dumps({"at": time.time(), "busy": busy}))
    fresh.replace(kernels_file(environment))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "devgw_environment.kernel_watch"}]


def _load_jupyter_server_extension(server: Any) -> None:
    from tornado.ioloop import (
        PeriodicCallback,  # the status reporter reads with this module and has no need of a web server
    )

    environment = Environment.from_process()

    def write() -> None:
        with contextlib.suppress(OSError):
            write_busy_kernels(environment, server.kernel_manager.list_kernels())

    server.devgw_kernel_watch = PeriodicCallback(write, WRITE_MILLISECONDS)
    server.devgw_kernel_watch.start()
