"""Where the run directories of this gateway's containers lie, remembered on disk.

A dial must not wait for the daemon: it can be busy or away while containers go on. The daemon is asked only for a
container that was made before this was remembered.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gateway.engines.docker import labels
from gateway.engines.run_directory import TARGET, RunDirectory
from gateway.model import EnvironmentRef


class RunDirectories:
    """One small file for each environment. Without a directory nothing is remembered: the daemon is always asked."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def find(self, ref: EnvironmentRef) -> RunDirectory | None:
        """Return what is remembered; a file that cannot be read is none."""
        if self._directory is None:
            return None
        try:
            found = json.loads(self._file(self._directory, ref).read_text())
            return RunDirectory(Path(found["path"]), int(found["uid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember(self, ref: EnvironmentRef, place: RunDirectory) -> None:
        """Write it whole, by rename; where that fails, the daemon is asked instead."""
        if self._directory is None:
            return
        file = self._file(self._directory, ref)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh.write_text(json.dumps({"version": 1, "path": str(place.path), "uid": place.uid}))
            fresh.replace(file)
        except OSError:
            self.forget(ref)

    def forget(self, ref: EnvironmentRef) -> None:
        """Remember it no more; what cannot be removed names a directory in which nothing answers."""
        if self._directory is not None:
            with suppress(OSError):
                self._file(self._directory, ref).unlink(missing_ok=True)

    @staticmethod
    def _file(directory: Path, ref: EnvironmentRef) -> Path:
        return directory / f"{ref.user}.{ref.name}.json"  # no name has a dot (`model.NAME_PATTERN`)


def run_directory_in(inspected: Mapping[str, Any]) -> RunDirectory | None:
    """Read it from `GET /containers/{id}/json`."""
    written = inspected["Config"]["Labels"] or {}
    for mount in inspected.get("Mounts") or ():
        if mount.get("Destination") == TARGET and mount.get("Type") == "bind":
            return RunDirectory(Path(mount["Source"]), labels.uid_in(written))
    return None
