"""What an environment reports of itself, and what it is told: two small files (docs/reference/environment-contract.md).

The engine fetches the report. Its user may have written anything there, so it is read for no more than their own
environment's sake.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.environments.account import swap_in
from gateway.environments.layout import Layout, disk_error

NOTICE = "notice.json"
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


def read_status(report: bytes | None, now: datetime) -> Status | None:
    """Read a report; None where there is none, it is old, or it is not what it should be."""
    if report is None:
        return None
    with suppress(ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        document = json.loads(report)
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
