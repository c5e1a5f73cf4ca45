"""Whether the GPUs of this environment answer, asked in a fresh process: one with NVML open already notices nothing.

A container can lose its GPUs when its device cgroup is rewritten; programs then see "Failed to initialize NVML".
"""

import ctypes
import json
import sys
from pathlib import Path

from devgw_environment.contract import Environment

LIBRARY = "libnvidia-ml.so.1"


def run_probe(environment: Environment) -> int:
    """Exit status 0 when every GPU answers, else 1 with the reason on standard output."""
    problem = find_problem(leased_gpus(environment.config_folder))
    if problem:
        print(problem)
    return 1 if problem else 0


def leased_gpus(config_folder: Path) -> list[str]:
    """The UUIDs that the gateway has given to this environment."""
    try:
        return [str(uuid) for uuid in json.loads((config_folder / "environment.json").read_text())["gpus"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def find_problem(uuids: list[str]) -> str:
    """What NVML says is wrong; empty when nothing is, and where there is no GPU to ask for."""
    if not uuids:
        return ""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"Failed to initialize NVML: {LIBRARY} is not here"
    status = nvml.nvmlInit_v2()
    if status:
        return f"Failed to initialize NVML: {describe(nvml, status)}"
    try:
        for uuid in uuids:
            device = ctypes.c_void_p()
            status = nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device))
            if status:
                return f"{uuid}: {describe(nvml, status)}"
    finally:
        nvml.nvmlShutdown()
    return ""


def describe(nvml: ctypes.CDLL, status: int) -> str:
    """NVML's own words for a status."""
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    return str(nvml.nvmlErrorString(status).decode(errors="replace"))


if __name__ == "__main__":
    sys.exit(run_probe(Environment.from_process()))
