"""Keeps the metrics while the gateway serves: counts the journal, measures, answers at the socket, writes the files."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.audit.segments import segments
from gateway.background.watchdog import Watchdog
from gateway.errors import DevgwError
from gateway.metrics.collection import Collection
from gateway.metrics.event_counts import EventCounts
from gateway.metrics.exposition import MetricsServer
from gateway.metrics.textfile import write_textfile
from gateway.metrics.user_disk import UserDisk

_READ_SECONDS = 0.5
_DOCTOR_SECONDS = 600.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricsPlan:
    """Where the numbers go, and how often they are taken. `user_disk_seconds` 0: nobody's disk is counted."""

    socket: Path
    textfile: Path | None
    interval_seconds: float
    user_disk_seconds: float
    user_directories: Callable[[], Iterable[tuple[str, Path]]]
    name_jobs: Callable[[], None]
    """Names environments to dcgm-exporter, where that is asked for."""


class MetricsPublishing:
    """One per gateway, in the process that has the duties."""

    def __init__(
        self,
        collection: Collection,
        events: EventCounts,
        disk: UserDisk,
        journal_dir: Path,
        plan: MetricsPlan,
        watchdog: Watchdog,
    ) -> None:
        self._collection = collection
        self._events = events
        self._disk = disk
        self._journal_dir = journal_dir
        self._plan = plan
        self._watchdog = watchdog
        self._registry = collection.registry()
        self._server = MetricsServer(plan.socket, self._registry)
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin; a socket that cannot be made is logged and stops nothing."""
        for name, work in (
            ("metrics: what the journal counts", self._count_events),
            ("metrics: at an interval", self._take_regularly),
            ("metrics: what takes long", self._take_slowly),
        ):
            self._watchdog.keep_thread(name, work, self._stop)
        try:
            self._server.start()
        except OSError as exc:
            _log.error("the metrics' socket %s cannot be made: %s", self._plan.socket, exc)

    def stop(self) -> None:
        """End; what was written last stays."""
        self._stop.set()
        self._server.stop()

    def _count_events(self) -> None:
        while not self._has_journal():
            if self._stop.wait(_READ_SECONDS):
                return
        self._events.follow(self._journal_dir, lambda: not self._stop.wait(_READ_SECONDS))

    def _has_journal(self) -> bool:
        try:
            return bool(segments(self._journal_dir))
        except OSError:
            return False

    def _take_regularly(self) -> None:
        while True:
            self._try("GPUs", self._collection.measure)
            self._try("connections and leases", self._collection.tick)
            self._try("dcgm-exporter's jobs", self._plan.name_jobs)
            if self._plan.textfile is not None:
                self._try(str(self._plan.textfile), partial(write_textfile, self._plan.textfile, self._registry))
            if self._stop.wait(self._plan.interval_seconds):
                return

    def _take_slowly(self) -> None:
        counted_at = float("-inf")
        while True:
            self._try("the doctor", self._collection.examine)
            due = self._plan.user_disk_seconds and time.monotonic() - counted_at >= self._plan.user_disk_seconds
            if due:
                counted_at = time.monotonic()
                self._try("users' disks", lambda: self._disk.count(self._plan.user_directories(), self._stop))
            if self._stop.wait(_DOCTOR_SECONDS):
                return

    @staticmethod
    def _try(what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (DevgwError, OSError) as exc:
            _log.error("metrics of %s could not be taken: %s", what, exc)
