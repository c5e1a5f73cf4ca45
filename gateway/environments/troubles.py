"""One environment's failure stays its own: written down, tried again after growing waits, shown until it ends.

Whoever goes from one environment to the next asks `is_due` first, and hands `note` whatever went wrong.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.environments.finding import Finding
from gateway.errors import DevgwError
from gateway.model import Environment, EnvironmentRef
from gateway.store.environments import EnvironmentTable

_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(minutes=30)
_LONGEST_TEXT = 300
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Trouble:
    failures: int
    due_at: datetime


class Troubles:
    """What one kind of care failed at. `doing` begins the text that is shown, and tells the kinds apart."""

    def __init__(
        self, table: EnvironmentTable, doing: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._table = table
        self._doing = doing
        self._now = now
        self._known: dict[EnvironmentRef, _Trouble] = {}

    def is_due(self, ref: EnvironmentRef) -> bool:
        """Say whether an environment gets its turn: one that failed waits first."""
        known = self._known.get(ref)
        return known is None or self._now() >= known.due_at

    def note(self, ref: EnvironmentRef, exc: Exception) -> Finding:
        """Remember a failure, whatever it was, and return it for the journal."""
        if not isinstance(exc, DevgwError):
            _log.error("%s: %s failed", ref, self._doing, exc_info=exc)
        failures = self._known[ref].failures + 1 if ref in self._known else 1
        wait = min(_FIRST_WAIT * 2 ** min(failures - 1, 10), _LONGEST_WAIT)
        self._known[ref] = _Trouble(failures, self._now() + wait)
        text = f"{self._doing} failed: {_words_of(exc)}"
        self._store(ref, text)
        times = "once" if failures == 1 else f"{failures} times"
        return Finding("environment.failed", ref, f"{text} ({times}; again in {wait.seconds // 60} min)")

    def end(self, environment: Environment) -> None:
        """Forget the failures of an environment whose turn went well, those of an earlier gateway too."""
        self._known.pop(environment.ref, None)
        if environment.trouble.startswith(self._doing):
            self._store(environment.ref, "")

    def _store(self, ref: EnvironmentRef, text: str) -> None:
        try:
            self._table.set_trouble(ref, text)
        except DevgwError as exc:
            _log.error("what is wrong with %s could not be written down: %s", ref, exc.message)


def _words_of(exc: Exception) -> str:
    said = exc.message if isinstance(exc, DevgwError) else f"{type(exc).__name__}: {exc}"
    printable = "".join(char if char.isprintable() else " " for char in said)
    return " ".join(printable.split())[:_LONGEST_TEXT]
