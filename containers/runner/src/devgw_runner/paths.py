"""Where a run reads and writes: data, checkpoints, logs and cache, each checked before the first step.

What is written there is left to `checkpoint`, `metrics` and torch's compiler.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devgw_runner.config import TrainConfig
from devgw_runner.errors import StorageError, UsageError, storage_error

ENVIRONMENT_VOLUMES = {"data": Path("/data"), "checkpoints": Path("/checkpoints"), "logs": Path("/logs")}
LOCAL_ROOT = Path("devgw-runs")
CHECKPOINTS_VARIABLE = "DEVGW_TRAIN_CHECKPOINT_DIR"
LOGS_VARIABLE = "DEVGW_TRAIN_LOG_DIR"
CACHE_VARIABLE = "DEVGW_TRAIN_CACHE_DIR"


@dataclass(frozen=True)
class RunPaths:
    """The directories of one run; `data` is read-only and may be absent."""

    run: str
    data: Path | None
    checkpoints: Path
    logs: Path
    cache: Path


def find_paths(config: TrainConfig, script_name: str) -> RunPaths:
    """Choose the directories: the setting, else the environment's volume, else below ./devgw-runs."""
    run = config.run_name or script_name
    return RunPaths(
        run=run,
        data=config.data_dir or _volume("data"),
        checkpoints=(config.checkpoint_dir or checkpoints_root()).absolute() / run,
        logs=(config.log_dir or logs_root()).absolute() / run,
        cache=(config.cache_dir or cache_root()).absolute(),
    )


def checkpoints_root() -> Path:
    """Return the root of all checkpoints when no setting names one."""
    named = os.environ.get(CHECKPOINTS_VARIABLE)
    return Path(named) if named else _volume("checkpoints") or LOCAL_ROOT / "checkpoints"


def logs_root() -> Path:
    """Return the root of all logs when no setting names one."""
    named = os.environ.get(LOGS_VARIABLE)
    return Path(named) if named else _volume("logs") or LOCAL_ROOT / "logs"


def cache_root() -> Path:
    """Return the compile cache's root: on the home volume, so that it outlives the container."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else _home() / ".cache" / "devgw-runner"


def prepare_paths(paths: RunPaths) -> None:
    """Create the writable directories and prove that they are writable, different, and not inside the data.

    Raises:
        UsageError: two of them coincide, or one lies inside the data.
        StorageError: one cannot be written.
        ReadOnlyError: one lies on a read-only volume.
    """
    writable = {"checkpoints": paths.checkpoints, "logs": paths.logs, "cache": paths.cache}
    if len(set(writable.values())) < len(writable):
        raise UsageError("checkpoints, logs and cache share a directory", "give each its own directory")
    for name, path in writable.items():
        if paths.data is not None and path.is_relative_to(paths.data.absolute()):
            raise UsageError(
                f"the {name} directory {path} lies inside the data", "data stays read-only; choose another"
            )
        prove_writable(path, name)
    if paths.data is not None and not paths.data.is_dir():
        raise UsageError(f"the data directory {paths.data} does not exist", "check --data-dir and the mount")


def prove_writable(path: Path, name: str) -> None:
    """Create `path` and write one byte in it.

    Raises:
        StorageError: the directory cannot be created or written.
        ReadOnlyError: it lies on a read-only volume.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".writable-") as probe:
            probe.write(b"1")
            probe.flush()
    except FileExistsError as exc:
        raise StorageError(f"the {name} directory {path} is a file", f"choose a directory for the {name}") from exc
    except OSError as exc:
        exc.filename = str(path)
        raise storage_error(exc, f"preparing the {name} directory") from exc


def _volume(name: str) -> Path | None:
    path = ENVIRONMENT_VOLUMES[name]
    return path if path.is_dir() else None


def _home() -> Path:
    # A container may run a uid without a passwd entry, where Path.home() raises.
    home = os.environ.get("HOME")
    return Path(home) if home else Path(tempfile.gettempdir()) / f"devgw-{os.getuid()}"
