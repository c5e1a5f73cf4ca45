"""Keeps room on the disk for what must be written when it is full: the journal, the database, administrators.

Made at the start, and made again by itself when it was used and there is room; a full disk is journaled, and its end.
"""

import logging
import threading
from collections.abc import Callable

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.disk import Ballast
from gateway.errors import DevgwError
from gateway.model import Actor

_log = logging.getLogger(__name__)
_GATEWAY = Actor("gateway", "devgw")
_LOOK_SECONDS = 10.0


class DiskReserve:
    """Looks every few seconds, on a thread of its own."""

    def __init__(
        self,
        ballast: Ballast,
        preallocate: Callable[[], bool],
        journal: Journal,
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """`preallocate` sets the database's room aside, and says whether it is there."""
        self._ballast = ballast
        self._preallocate = preallocate
        self._journal = journal
        self._look_seconds = look_seconds
        self._is_there = True
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Make the reserve, and keep it until `end`."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="disk reserve", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Make what is missing, where there is room; say when that changes."""
        try:
            if self._journal.is_short:
                self._journal.look_for_room()
            is_there = all((self._preallocate(), self._ballast.make(), not self._journal.is_short))
            if is_there != self._is_there:
                self._is_there = is_there
                self._say(is_there=is_there)
        except (DevgwError, OSError) as exc:
            _log.error("room on the disk could not be set aside: %s", exc)

    def _say(self, *, is_there: bool) -> None:
        if is_there:
            _log.warning("the disk has room again, and the gateway's own room is set aside")
            self._journal.append(Event("disk.freed", _GATEWAY))
        else:
            _log.error("the disk is full: what must be written still is, from the room that was set aside")
            self._journal.append(Event("disk.filled", _GATEWAY))

    def _run(self) -> None:
        while not self._ended.wait(self._look_seconds):
            self.look()
