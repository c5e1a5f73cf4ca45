"""Joins the metrics of one gateway with what they are taken from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gateway.audit.journal import Journal
from gateway.background.metrics_publishing import MetricsPlan, MetricsPublishing
from gateway.background.watchdog import Watchdog
from gateway.config import Settings
from gateway.doctor.doctor import Doctor
from gateway.doctor.doctor import Sources as DoctorSources
from gateway.duties import last_runs
from gateway.engines.interface import ObservedEnvironment
from gateway.environments.disks import Disks
from gateway.gpus.inventory import Inventory
from gateway.gpus.sensors import Measuring
from gateway.metrics.collection import Collection, Sources, Tables
from gateway.metrics.event_counts import EventCounts
from gateway.metrics.job_mapping import JobMapping
from gateway.metrics.nodes import OnNodes
from gateway.metrics.user_disk import UserDisk


@dataclass(frozen=True, slots=True)
class MetricsSite:
    """What the numbers are taken from; `bans` counts who is shut out."""

    settings: Settings
    tables: Tables
    journal: Journal
    disks: Disks
    inventory: Inventory
    sensors: Measuring
    bans: Callable[[], int]
    doctor_sources: DoctorSources
    observed: Callable[[], Sequence[ObservedEnvironment]]
    """Every environment, as the engine sees it."""


class SiteMetrics:
    """The numbers of this gateway, counted from now on."""

    def __init__(self, site: MetricsSite) -> None:
        settings = site.settings
        sources = Sources(
            journal_dir=settings.journal_dir,
            last_head_file=settings.last_head_file,
            journal_lag=site.journal.lag_seconds,
            directories={"state": settings.state_dir, "run": settings.run_dir, "cache": settings.cache_dir},
            disks=site.disks.uses,
            inventory=site.inventory.read,
            sensors=site.sensors,
            bans=site.bans,
            doctor=Doctor(site.doctor_sources).look,
            duties=partial(last_runs, settings.duties_file),
            workers=settings.server.workers,
            nodes=lambda: OnNodes(site.doctor_sources.nodes(), site.observed()),
        )
        self._site = site
        self.events, self.disk = EventCounts(datetime.now(UTC)), UserDisk()
        self.collection = Collection(site.tables, sources, self.events, self.disk)

    def publishing(self, watchdog: Watchdog) -> MetricsPublishing:
        """Return what keeps them while the gateway serves."""
        settings, chosen = self._site.settings, self._site.settings.metrics
        plan = MetricsPlan(
            socket=settings.metrics_socket,
            textfile=Path(chosen.textfile) if chosen.textfile else None,
            interval_seconds=chosen.interval,
            user_disk_seconds=chosen.user_disk_interval,
            user_directories=lambda: _volumes(settings.state_dir / "volumes"),
            name_jobs=self._name_jobs,
        )
        return MetricsPublishing(self.collection, self.events, self.disk, settings.journal_dir, plan, watchdog)

    def _name_jobs(self) -> None:
        directory = self._site.settings.metrics.job_mapping_dir
        if directory:
            JobMapping(Path(directory)).write(self._site.tables.leases.held(), self.collection.indices())


def _volumes(directory: Path) -> Iterator[tuple[str, Path]]:
    """Name each environment's files, which may be a file system of their own; a user's name is their directory's."""
    yield from ((place.parent.name, place) for place in sorted(directory.glob("*/*")))
