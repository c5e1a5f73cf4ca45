"""All of the gateway's numbers as one collector: asked of the store at each scrape, of slower sources now and then.

A part that cannot be collected leaves out its families and says so in `devgw_collect_errors`; the others are there.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.registry import Collector, CollectorRegistry

from gateway.doctor.finding import Report
from gateway.environments.disk_limit import DiskUse
from gateway.errors import DevgwError
from gateway.gpus.reading import Reading
from gateway.gpus.sensors import Measuring, Sensors
from gateway.metrics import families, gpu_readings, site
from gateway.metrics import nodes as of_nodes
from gateway.metrics.event_counts import EventCounts
from gateway.metrics.families import AnyFamily
from gateway.metrics.gpu_readings import GpuNames
from gateway.metrics.gpu_seconds import GpuSeconds
from gateway.metrics.nodes import OnNodes
from gateway.metrics.user_disk import UserDisk
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.queue import QueueTable
from gateway.store.sessions import LiveSessionTable, SessionTraffic
from gateway.store.usage import UsageTable
from gateway.store.users import Users
from gateway.version import VERSION

_FRESH_SECONDS = 1.0
_MEASURED_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows that are asked at each scrape."""

    users: Users
    environments: EnvironmentTable
    sessions: LiveSessionTable
    leases: LeaseTable
    queue: QueueTable
    usage: UsageTable


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom is asked beside the tables. `doctor` goes a round, `duties` says when each loop last went round."""

    journal_dir: Path
    last_head_file: Path
    journal_lag: Callable[[], float]
    directories: Mapping[str, Path]
    disks: Callable[[], Mapping[EnvironmentRef, DiskUse]]
    inventory: Callable[[], Reading]
    sensors: Measuring
    bans: Callable[[], int]
    doctor: Callable[[], Report]
    duties: Callable[[], Mapping[str, float]]
    workers: int
    nodes: Callable[[], OnNodes] = OnNodes


class Collection(Collector):
    """One per process that has the duties. `measure`, `examine` and `tick` are called in the background."""

    def __init__(self, tables: Tables, sources: Sources, events: EventCounts, disk: UserDisk) -> None:
        self._tables = tables
        self._sources = sources
        self._events = events
        self._disk = disk
        self._began = datetime.now(UTC)
        self._seconds = GpuSeconds(tables.leases.past, tables.usage.between, self._began)
        self._guard = threading.Lock()
        self._last: tuple[AnyFamily, ...] = ()
        self._last_at = float("-inf")
        self._sensors, self._reading, self._measured_at = Sensors(), Reading("none"), float("-inf")
        self._report: tuple[Report, float] | None = None
        self._nodes: OnNodes | None = None

    def registry(self) -> CollectorRegistry:
        """Return what Prometheus' exposition wants."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def describe(self) -> Iterable[AnyFamily]:
        """Return the families without samples, so that nothing is collected when the collector is registered."""
        return [family.empty() for family in families.FAMILIES]

    def measure(self) -> None:
        """Ask the driver, which may take seconds where it has to be woken, and the engine."""
        self._sensors, self._reading = self._sources.sensors.read(), self._sources.inventory()
        try:
            self._nodes = self._sources.nodes()
        except DevgwError as exc:
            _log.info("the nodes could not be asked for their numbers: %s", exc)
            self._nodes = None
        self._measured_at = time.monotonic()

    def indices(self) -> dict[GpuUuid, str]:
        """Return the number of each GPU, `0`, and slice, `0:1`, as of the last measurement."""
        listed = {gpu.uuid: gpu.index for gpu in self._reading.gpus}
        return listed | {device.uuid: device.index for device in self._sensors.devices}

    def examine(self) -> None:
        """Have the doctor go a round. Raises: DevgwError."""
        self._report = self._sources.doctor(), time.time()

    def tick(self) -> None:
        """Count what only a regular look can count. Raises: DevgwError."""
        live = self._tables.sessions.traffic()
        self._see(live)
        self._events.forget_lost({one.id for one in live})
        self._seconds.look(self._tables.leases.held(), datetime.now(UTC))

    def collect(self) -> Iterable[AnyFamily]:
        """Return every family; several scrapes within a second get the same numbers."""
        with self._guard:
            if time.monotonic() - self._last_at > _FRESH_SECONDS:
                self._last = tuple(self._collected())
                self._last_at = time.monotonic()
            return self._last

    def _collected(self) -> Iterator[AnyFamily]:
        began = time.perf_counter()
        if time.monotonic() - self._measured_at > _MEASURED_SECONDS:
            self.measure()
        errors = families.COLLECT_ERRORS.new()
        for part, collect in self._parts():
            try:
                yield from tuple(collect())
            except (DevgwError, OSError, ValueError) as exc:
                _log.error("metrics of %s could not be collected: %s", part, exc)
                errors.add_metric([part], 1)
        yield errors
        yield families.COLLECT_SECONDS.of(time.perf_counter() - began)

    def _parts(self) -> tuple[tuple[str, Callable[[], Iterable[AnyFamily]]], ...]:
        tables, sources = self._tables, self._sources
        return (
            ("gateway", self._gateway),
            ("users", lambda: site.users(*tables.users.count())),
            ("environments", lambda: site.environments(*tables.environments.counts())),
            ("connections", self._connections),
            ("gpus", self._gpus),
            ("nodes", self._by_node),
            ("journal", lambda: site.journal(sources.journal_dir, sources.last_head_file, sources.journal_lag())),
            ("disk", lambda: (*site.disks(sources.directories), self._disk.family())),
            ("environments' disks", lambda: site.environment_disks(sources.disks())),
            ("doctor", lambda: site.doctor(*self._report) if self._report else ()),
        )

    def _gateway(self) -> Iterator[AnyFamily]:
        build, duties = families.BUILD.new(), families.DUTY_RUN.new()
        build.add_metric([VERSION], 1)
        for duty, at in sorted(self._sources.duties().items()):
            duties.add_metric([duty], at)
        yield from (build, duties, families.START_TIME.of(self._began.timestamp()))
        yield families.WORKERS.of(self._sources.workers)
        yield families.BANS.of(self._sources.bans())

    def _connections(self) -> Iterator[AnyFamily]:
        live = self._tables.sessions.traffic()
        self._see(live)
        yield from site.connections(live)
        yield from self._events.collect(GpuNames(self._sensors).labels)

    def _gpus(self) -> Iterator[AnyFamily]:
        now, held, names = datetime.now(UTC), self._tables.leases.held(), GpuNames(self._sensors)
        quarantined = {one.gpu for one in self._tables.leases.quarantined()}
        yield from gpu_readings.measured(self._sensors, names)
        yield from gpu_readings.leased(self._reading, held, quarantined, names)
        yield from gpu_readings.queue(self._tables.queue.waiting(now), now)
        self._seconds.look(held, now)
        yield from self._seconds.families()

    def _by_node(self) -> Iterable[AnyFamily]:
        """Return nothing while the engine does not answer: what it said a minute ago is no number of now."""
        return () if self._nodes is None else of_nodes.nodes(self._nodes, len(self._reading.gpus))

    def _see(self, live: Iterable[SessionTraffic]) -> None:
        self._events.saw_connections((one.id, one.sent_bytes, one.received_bytes) for one in live)
