"""Start a training in as many processes as there are devices, or in this one.

What torchrun loses (exit codes, SIGUSR1) is kept by `parallel.launch`.
"""

import os
import sys
from collections.abc import Sequence

import torch

from devgw_runner.entry import guarded
from devgw_runner.environment import process_environment
from devgw_runner.errors import EXIT_OWN_FAILURE
from devgw_runner.parallel.cluster import Cluster
from devgw_runner.paths import cache_root
from devgw_runner.resources import usable_cpus
from devgw_runner.script import is_module_path, run_target

ALONE = Cluster()


def train_target(target: str, arguments: Sequence[str], processes: int | None, cluster: Cluster = ALONE) -> int:
    """Train a script or `module:Task`; several processes replace this one."""
    count = processes or _default_processes(arguments)
    single = count == 1 and cluster.is_alone and not cluster.restarts
    if single or "WORLD_SIZE" in os.environ:
        return guarded(lambda: run_target(target, arguments))
    return _become_launcher(target, arguments, count, cluster)


def _default_processes(arguments: Sequence[str]) -> int:
    """One process per visible GPU, unless the settings name one process or the CPU."""
    line = " ".join(arguments).replace("=", " ")
    if "--parallel single" in line or "--device cpu" in line or "--explain" in line:
        return 1
    return max(1, torch.cuda.device_count())


def _become_launcher(target: str, arguments: Sequence[str], count: int, cluster: Cluster) -> int:
    cpus = max(1, usable_cpus() // count)
    environment = {**process_environment(cache_root().absolute(), cpus), **cluster.environment(), **os.environ}
    script = ["-m", "devgw_runner", target] if is_module_path(target) else [target]
    command = [
        sys.executable,
        "-m",
        "devgw_runner.parallel.launch",
        "--nproc",
        str(count),
        *(f"--torchrun={word}" for word in cluster.arguments()),
        "--",
        *script,
        *arguments,
    ]
    os.execve(sys.executable, command, environment)  # noqa: S606 - replaced, so that signals reach the launcher itself
    return EXIT_OWN_FAILURE
