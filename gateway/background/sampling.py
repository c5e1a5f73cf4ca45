"""Has something measured at every interval while the gateway serves. A failure is logged and never stops serving."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gateway.errors import DevgwError

_log = logging.getLogger(__name__)
_FORGET_SECONDS = 3600


class Looking(Protocol):
    """Measures once and keeps what it saw. Raises: DevgwError."""

    def look(self) -> None: ...


class Kept(Protocol):
    """What was seen."""

    def forget(self, before: datetime) -> None:
        """Remove what is older."""


class Sampling:
    """Looks at every interval and forgets old samples once an hour, on a thread of its own. `what` is for the log."""

    def __init__(
        self, what: str, sampler: Looking, samples: Kept, *, interval_seconds: float, keep_seconds: float
    ) -> None:
        self._what = what
        self._sampler = sampler
        self._samples = samples
        self._interval = interval_seconds
        self._keep = timedelta(seconds=keep_seconds)
        self._forgotten_at: datetime | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, also again; ends with the process or by `stop`."""
        self._stop = threading.Event()
        threading.Thread(target=self.run, name=f"sample {self._what}"[:15], daemon=True).start()

    def stop(self) -> None:
        """Begin no other look."""
        self._stop.set()

    def run(self) -> None:
        """Look at every interval until told to stop."""
        stop = self._stop
        while True:
            try:
                self.look(datetime.now(UTC))
            except DevgwError as exc:
                _log.warning("%s: not measured: %s", self._what, exc.message)
            except Exception:  # noqa: BLE001 - whatever it was, the next look must come
                _log.exception("%s: not measured", self._what)
            if stop.wait(self._interval):
                return

    def look(self, now: datetime) -> None:
        """Measure once; once an hour also forget what is older than is kept. Raises: DevgwError."""
        self._sampler.look()
        if self._forgotten_at is None or (now - self._forgotten_at).total_seconds() >= _FORGET_SECONDS:
            self._samples.forget(now - self._keep)
            self._forgotten_at = now
