"""Builds the stand-in for the driver's library and runs Python with it, so that nvidia-ml-py is used unchanged."""

import os
import subprocess
import sys
from pathlib import Path

SOURCES = [str(Path(__file__).parent / name) for name in ("nvml.c", "sensors.c")]
ROOT = Path(__file__).parents[3]


def build(directory: Path) -> Path:
    """Compile `libnvidia-ml.so.1` into a directory and return the directory."""
    library = directory / "libnvidia-ml.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", *SOURCES, "-o", str(library)],
        check=True,
        timeout=60,
    )
    return directory


def run_python(code: str, library_directory: Path, facts: Path) -> str:
    """Run code in a process of its own, where the dynamic linker finds the stand-in, and return its output."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library_directory), "NVML_STANDIN": str(facts)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout
