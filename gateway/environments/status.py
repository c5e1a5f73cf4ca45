"""What an environment reports of itself, and what it is told: two small files (docs/reference/environment-contract.md).

The report lies in the directory that its user owns, so it is read like anything a user wrote: never through a link, a
little of it, and for no more than their own environment's sake.
"""

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.environments.account import swap_in
from gateway.environments.layout import Layout, disk_error

STATUS = "status.json"
NOTICE = "notice.json"
_MOST_BYTES = 4096
_FRESH = timedelta(minutes=2)
_MOST_REFUSALS = 10**9  # a user writes the report, and may write anything


@dataclass(frozen=True, slots=True)
class Status:
    """A report not older than two minutes. `gpu_error` is what the probe inside saw, empty when all is well.

    `refused_logins` counts wrong notebook passwords since the environment started, `refused_at` is the last one's time.
    """

    cpu_percent: float = 0.0
    busy_kernels: int = 0
    gpu_error: str = ""
    refused_logins: int = 0
    refused_at: datetime | None = None


def read_status(run_directory: Path, uid: int, now: datetime) -> Status | None:
    """Return the report, or None where there is none, it is old, or it is not what it should be."""
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
        document = json.loads(_read_own(run_directory / STATUS, uid))
        at = datetime.fromtimestamp(float(document["at"]), UTC)
        if abs(now - at) <= _FRESH:
            return Status(
                cpu_percent=float(document["cpu_percent"]),
                busy_kernels=int(document["busy_kernels"]),
                gpu_error=str(document["gpu_error"])[:200],
                refused_logins=max(0, min(int(document.get("refused_logins", 0)), _MOST_REFUSALS)),
                refused_at=datetime.fromtimestamp(float(document.get("refused_at", 0.0)), UTC),
            )
    return None


def write_notice(layout: Layout, uid: int, gid: int, *, reason: str, stop_at: datetime, save: bool) -> None:
    """Tell an environment that it will stop, and with `save` that it must save now. Raises: StoreError."""
    document = {"version": 1, "reason": reason, "stop_at": stop_at.timestamp(), "save": save}
    try:
        swap_in(layout.config / NOTICE, json.dumps(document) + "\n", 0o444, uid, gid)
    except OSError as exc:
        raise disk_error(exc, layout.config) from exc


def withdraw_notice(layout: Layout) -> None:
    """Tell an environment nothing any more."""
    with suppress(OSError):
        (layout.config / NOTICE).unlink(missing_ok=True)


def _read_own(path: Path, uid: int) -> bytes:
    """Read a regular file of this uid's; a FIFO in its place must not make us wait (O_NONBLOCK)."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path.name, flags, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != uid:
            raise ValueError("not the environment's own file")
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)
