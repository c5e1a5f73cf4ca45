"""How many notebook logins were refused since the environment started, for the report to the gateway's journal."""

import contextlib
import json
import time
from pathlib import Path


def refusals_file(scratch: Path) -> Path:
    """Where the notebook server counts and the status reporter reads."""
    return scratch / "refused.json"


def note_refusal(scratch: Path) -> None:
    """Count one more. Only the notebook server writes, so nothing is lost between reading and writing."""
    count = int(read_refusals(scratch)["count"])
    fresh = refusals_file(scratch).with_suffix(".new")
    with contextlib.suppress(OSError):  # a full scratch disk keeps nobody from logging in
        fresh.write_text(json.dumps({"count": count + 1, "at": time.time()}))
        fresh.replace(refusals_file(scratch))


def read_refusals(scratch: Path) -> dict[str, float]:
    """How many there were, and when the last was; nothing where nobody was refused."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(refusals_file(scratch).read_text())
        return {"count": int(document["count"]), "at": float(document["at"])}
    return {"count": 0, "at": 0.0}
