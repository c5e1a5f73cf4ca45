"""What the runner's own doctor says inside an environment, as findings of ours.

The two meet in `devgw-run doctor -o json` (version 1): name, state, message and fix of each check.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from gateway.doctor.finding import Finding, Level, Unasked, failure, ok, unknown
from gateway.model import GpuUuid

COMMAND = ("devgw-run", "doctor", "-o", "json")
LIST_COMMAND = ("nvidia-smi", "-L")
_UUID = re.compile(r"UUID: ((?:GPU|MIG)-[0-9a-fA-F-]+)")
_LEVELS = {"ok": Level.OK, "warning": Level.WARNING, "failed": Level.FAILURE}
_NOT_FOUND = 127  # POSIX shell, "command not found"
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command inside an environment left."""

    exit_code: int
    stdout: str
    stderr: str = ""


def judge_inside(answer: Answer | Unasked, handle: str) -> Iterator[Finding]:
    """Read the runner's report. The environment's user wrote what is read, so nothing in it is trusted but shown."""
    if isinstance(answer, Unasked):
        yield unknown("inside", f"could not be asked: {answer.why}", f"'devgw start {handle}', then ask again")
        return
    if answer.exit_code == _NOT_FOUND:
        yield unknown("inside", "its image has no devgw-run", "'devgw image build', then 'devgw restart' it")
        return
    try:
        yield from _findings(json.loads(answer.stdout))
    except (ValueError, KeyError, TypeError):
        said = " ".join((answer.stderr or answer.stdout).split())[:_LONGEST] or "nothing"
        yield unknown(
            "inside",
            f"{' '.join(COMMAND)} ended with {answer.exit_code} and said {said!r}",
            f"run it yourself: ssh {handle} {' '.join(COMMAND)}",
        )


def judge_visible(answer: Answer | Unasked, leased: Collection[GpuUuid], handle: str) -> Finding:
    """Hold what `nvidia-smi -L` shows inside against the leases: exactly those, neither fewer nor more.

    A slice comes with the line of its GPU, which is none to compute on.
    """
    check = "inside.gpus"
    if isinstance(answer, Unasked):
        return unknown(check, f"could not be asked: {answer.why}", f"'devgw start {handle}', then ask again")
    if answer.exit_code == _NOT_FOUND:
        return unknown(check, "nvidia-smi is not injected", "the driver's 'utility' capability brings it")
    if "failed to initialize nvml" in (answer.stdout + answer.stderr).lower():
        return failure(
            check,
            "the environment has lost its GPU: Failed to initialize NVML",
            f"'devgw restart {handle}': its files stay",
        )
    shown = set(_UUID.findall(answer.stdout))
    if any(uuid.startswith("MIG-") for uuid in leased):
        shown = {uuid for uuid in shown if uuid.startswith("MIG-")}
    missing, surplus = sorted(set(leased) - shown), sorted(shown - set(leased))
    if surplus:
        return failure(
            check, f"it sees {', '.join(surplus)}, which it does not hold", f"'devgw stop {handle}', and report it"
        )
    if missing:
        return failure(check, f"it does not see {', '.join(missing)}, which it holds", f"'devgw restart {handle}'")
    return ok(check, f"it sees exactly the {len(shown)} it holds")


def _findings(report: object) -> list[Finding]:
    if not isinstance(report, dict) or report["version"] != 1:
        raise ValueError("not a report of version 1")
    return [
        Finding(
            f"inside.{_line(check['name'])}",
            _LEVELS[check["state"]],
            _line(check["message"]),
            _line(check["fix"]),
        )
        for check in report["checks"]
    ]


def _line(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("not a text")
    return " ".join(text.split())[:_LONGEST]
