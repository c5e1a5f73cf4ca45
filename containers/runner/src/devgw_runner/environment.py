"""Set the variables that torch's compiler reads: caches that outlive the container, bounded threads.

Values that the user set stay.
"""

import getpass
import os
from collections.abc import MutableMapping
from pathlib import Path

from devgw_runner.resources import usable_cpus


def compiler_environment(cache: Path, cpus: int) -> dict[str, str]:
    """Return the variables for Inductor and Triton.

    Workers default to the machine's CPUs and ignore the cgroup's quota (pytorch/pytorch#191385).
    """
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": str(cpus),
    }


def process_environment(cache: Path, cpus: int) -> dict[str, str]:
    """Return what a fresh process should find: the compiler's variables, threads, allocator, device order."""
    return {
        **compiler_environment(cache, cpus),
        "OMP_NUM_THREADS": str(cpus),
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **_user_name(),
    }


def prepare_compiler_environment(cache: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the compiler's variables in this process, unless they are set."""
    for name, value in {**compiler_environment(cache, usable_cpus()), **_user_name()}.items():
        environment.setdefault(name, value)


def _user_name() -> dict[str, str]:
    """Name a user without a passwd entry; parts of torch ask for one (pytorch/pytorch#140765)."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        return {"USER": f"uid-{os.getuid()}"}
    return {}
