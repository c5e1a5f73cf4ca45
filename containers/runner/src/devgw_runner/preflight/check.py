"""What one check says: a state, one sentence, and one fix."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

REPORT_VERSION = 1


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """The outcome of one check. `fix` is empty where all is well."""

    name: str
    state: State
    message: str
    fix: str = ""


def passed(name: str, message: str) -> Check:
    return Check(name, State.OK, message)


def warned(name: str, message: str, fix: str) -> Check:
    return Check(name, State.WARNING, message, fix)


def failed(name: str, message: str, fix: str) -> Check:
    return Check(name, State.FAILED, message, fix)


def report_json(checks: list[Check]) -> dict[str, Any]:
    """Return the stable object that `-o json` prints."""
    return {
        "version": REPORT_VERSION,
        "ok": all(check.state is not State.FAILED for check in checks),
        "checks": [asdict(check) for check in checks],
    }


def report_text(checks: list[Check]) -> str:
    """Return one line per check, and the fix below where there is one."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<12} {check.message}")
        if check.fix:
            lines.append(f"{'':<21} fix: {check.fix}")
    return "\n".join(lines)
