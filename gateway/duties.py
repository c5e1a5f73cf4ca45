"""What the serving gateway does by itself, as a file that `devgw doctor` reads: when each loop last went round or died.

The process that has the duties writes it; whoever restarts the loops stands in `background.watchdog`.
"""

import json
import logging
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

_STALE_SECONDS = 600.0
_REMEMBERED_SECONDS = 3600.0
_LONGEST_TEXT = 200
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Duty:
    beat_at: float = 0.0
    died_at: float = 0.0
    deaths: int = 0
    why: str = ""


@dataclass
class DutyBoard:
    """The file, written whole. That it cannot be written is logged and stops nothing."""

    file: Path
    _duties: dict[str, _Duty] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def beat(self, name: str) -> None:
        """Note that a loop went round."""
        with self._lock:
            self._duties.setdefault(name, _Duty()).beat_at = time.time()
            self._write()

    def died(self, name: str, exc: BaseException) -> None:
        """Note that a loop ended by an error, and is begun again."""
        with self._lock:
            duty = self._duties.setdefault(name, _Duty())
            duty.died_at, duty.deaths = time.time(), duty.deaths + 1
            duty.why = f"{type(exc).__name__}: {exc}"[:_LONGEST_TEXT]
            self._write()

    def _write(self) -> None:
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            fresh.write_text(json.dumps({name: asdict(duty) for name, duty in self._duties.items()}))
            fresh.chmod(0o600)
            fresh.replace(self.file)
        except OSError as exc:
            _log.warning("%s could not be written: %s", self.file, exc.strerror)


def last_runs(file: Path) -> dict[str, float]:
    """Return when each loop last went round; nothing where that cannot be read."""
    try:
        duties = {name: _Duty(**found) for name, found in json.loads(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: duty.beat_at for name, duty in duties.items() if duty.beat_at}


def faults_of(file: Path, now: float) -> str:
    """Say which loop stands still, or died within the hour; nothing where all go round, or none was ever begun."""
    try:
        duties = {name: _Duty(**found) for name, found in json.loads(file.read_text()).items()}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        return f"{file} cannot be read: {exc}"
    for name, duty in sorted(duties.items()):
        if duty.beat_at and now - duty.beat_at > _STALE_SECONDS:
            return f"'{name}' last went round {(now - duty.beat_at) / 60:.0f} min ago"
        if now - duty.died_at < _REMEMBERED_SECONDS:
            times = "once" if duty.deaths == 1 else f"{duty.deaths} times"
            return f"'{name}' died {times} and was begun again: {duty.why}"
    return ""
