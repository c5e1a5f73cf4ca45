"""Limits, compiler and volumes of the environment."""

import os
import shutil
from pathlib import Path

from devgw_runner.errors import RunnerError
from devgw_runner.paths import ENVIRONMENT_VOLUMES, cache_root, logs_root, prove_writable
from devgw_runner.preflight.check import Check, failed, passed, warned
from devgw_runner.resources import Resources, read_resources

SMALL_SHM_BYTES = 512 * 2**20  # Docker's default is 64 MiB, too little for loader processes
LITTLE_DISK_BYTES = 2**30


def check_limits() -> Check:
    resources = read_resources()
    return passed("limits", f"{resources.cpus} CPUs, {resources.memory_bytes / 2**30:.1f} GiB of memory")


def check_shm(resources: Resources | None = None) -> Check:
    """Loader processes pass batches through /dev/shm; too little of it is a bus error or a hang."""
    size = (resources or read_resources()).shm_bytes
    shown = f"{size / 2**20:.0f} MiB free in /dev/shm"
    if size < SMALL_SHM_BYTES:
        return warned("shm", f"only {shown}", "start the environment with a larger --shm-size, or use --workers 0")
    return passed("shm", shown)


def check_compiler() -> Check:
    """Inductor compiles C++ for the CPU; Triton compiles a C launcher for the GPU."""
    candidates = [os.environ.get("CXX"), "g++", "clang++"]
    found = next((path for name in candidates if name and (path := shutil.which(name))), None)
    if found is None:
        return warned(
            "compiler",
            "no C++ compiler: torch.compile will fall back to eager",
            "install g++ in the environment",
        )
    return passed("compiler", f"{found}")


def check_data(path: Path = ENVIRONMENT_VOLUMES["data"]) -> Check:
    """Data should be mounted read-only and not be empty."""
    if not path.is_dir():
        return passed("data", f"no data volume at {path}")
    if not any(path.iterdir()):
        return warned("data", f"{path} is empty", "check the mount's source on the host")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return passed("data", f"{path} is read-only and not empty")
    return warned("data", f"{path} is mounted writable", "mount data read-only, so that no run can alter it")


def check_checkpoints() -> Check:
    path = ENVIRONMENT_VOLUMES["checkpoints"]
    return check_volume("checkpoints", path) if path.is_dir() else passed("checkpoints", "no checkpoint volume")


def check_logs() -> Check:
    return check_volume("logs", logs_root())


def check_cache() -> Check:
    return check_volume("cache", cache_root())


def check_volume(name: str, path: Path) -> Check:
    """Write one byte, and look at the free space."""
    try:
        prove_writable(path, name)
    except RunnerError as exc:
        return failed(name, exc.message, exc.hint)
    free = shutil.disk_usage(path).free
    if free < LITTLE_DISK_BYTES:
        return warned(name, f"only {free / 2**20:.0f} MiB free on {path}", "delete old checkpoints, logs or caches")
    return passed(name, f"{path} is writable, {free / 2**30:.1f} GiB free")
