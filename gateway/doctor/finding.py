"""What one check says: a level, one sentence and one fix; and the report that they make together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

Fact = TypeVar("Fact")


class Level(StrEnum):
    """How bad it is. `unknown` is what could not be asked: it is never taken for `ok`."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Unasked:
    """Stands in the place of a fact that could not be learned, and says why; `hint` is what may help, if known."""

    why: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `fix` is empty exactly where all is well."""

    check: str
    level: Level
    message: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return what `-o json` prints."""
        return {"check": self.check, "level": self.level.value, "message": self.message, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 when all is well, 2 with a failure, else 1: with a warning, or with what could not be asked."""
        levels = {finding.level for finding in self.findings}
        if Level.FAILURE in levels:
            return 2
        return 1 if levels - {Level.OK} else 0

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each level."""
        return {level.value: sum(finding.level is level for finding in self.findings) for level in Level}

    def as_dict(self) -> dict[str, Any]:
        """Return what `-o json` prints; names are stable within JSON version 1."""
        return {
            "ok": self.exit_code == 0,
            "counts": self.counts(),
            "findings": [finding.as_dict() for finding in self.findings],
        }


def ok(check: str, message: str) -> Finding:
    """Say that all is well."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    """Say that something will go wrong one day, or for somebody."""
    return Finding(check, Level.WARNING, message, fix)


def failure(check: str, message: str, fix: str) -> Finding:
    """Say that something is broken."""
    return Finding(check, Level.FAILURE, message, fix)


def unknown(check: str, message: str, fix: str) -> Finding:
    """Say that nobody can tell, and how it could be told."""
    return Finding(check, Level.UNKNOWN, message, fix)


def judged(check: str, fact: Fact | Unasked, judge: Callable[[Fact], Finding], ask_by: str) -> Finding:
    """Judge a fact, or say that it could not be asked and how it could be."""
    return unknown(check, f"could not be asked: {fact.why}", ask_by) if isinstance(fact, Unasked) else judge(fact)


def report_of(findings: Iterable[Finding]) -> Report:
    """Keep the findings in the order in which they were made."""
    return Report(tuple(findings))
