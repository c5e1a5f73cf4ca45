"""Set the variables that torch's compiler reads: caches that outlive the container, bounded threads.

Values that the user set stay.
"""

import getpass
import os
from collections.abc import Mapping, MutableMapping
from importlib.metadata import version
from pathlib import Path

from devgw_runner.resources import usable_cpus

ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


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
        **_allocator_settings(),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **_user_name(),
    }


def _allocator_settings(
    environment: Mapping[str, str] = os.environ, torch_version: str | None = None
) -> dict[str, str]:
    """Name the allocator's settings as this torch reads them; what the user set under either name stays alone.

    The older name is the only one that torch knows up to 2.8, and 2.9 reads both; newer ones warn of it.
    """
    if any(name in environment for name in ALLOCATOR_VARIABLES):
        return {}
    known = torch_version or version("torch")
    major, minor = (int(part) for part in known.split("+")[0].split(".")[:2])
    names = ALLOCATOR_VARIABLES if (major, minor) <= (2, 9) else ALLOCATOR_VARIABLES[:1]
    return dict.fromkeys(names, "expandable_segments:True")


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
