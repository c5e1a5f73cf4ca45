"""Names environments to dcgm-exporter: a file for each leased GPU in its directory of job mappings.

dcgm-exporter takes files named by a GPU's number, and each line as a job on that GPU (DCGM_HPC_JOB_MAPPING_DIR). It
knows no slices: a GPU in MIG mode has a line for each environment that holds one of its slices. Only files that this
gateway wrote are removed; a list beside them says which those are.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.model import GpuUuid
from gateway.store.leases import Lease

_LIST = ".devgw-files"


class JobMapping:
    """The directory. Nothing is written where nothing changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, held: Iterable[Lease], indices: Mapping[GpuUuid, str]) -> None:
        """Make the files say who holds what; an index is `0`, or `0:1` for a slice. Raises: OSError."""
        jobs: defaultdict[str, set[str]] = defaultdict(set)
        for lease in held:
            number = indices.get(lease.gpu, "").partition(":")[0]
            if number.isdecimal():
                jobs[number].add(str(lease.ref))
        mine = self._mine()
        if mine != set(jobs):
            self._write(_LIST, mine | set(jobs))  # before any file is there, so that none is left without its owner
        for number, environments in jobs.items():
            if self._text(number) != _lines(environments):
                self._write(number, environments)
        for number in mine - set(jobs):
            (self._directory / number).unlink(missing_ok=True)
        if mine - set(jobs):
            self._write(_LIST, set(jobs))

    def _mine(self) -> set[str]:
        return {name for name in self._text(_LIST).split() if name.isdecimal()}

    def _text(self, name: str) -> str:
        try:
            return (self._directory / name).read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def _write(self, name: str, lines: Iterable[str]) -> None:
        fresh = self._directory / f".{name}.{os.getpid()}"
        fresh.write_text(_lines(lines))
        fresh.chmod(0o644)
        fresh.replace(self._directory / name)


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in sorted(items))
