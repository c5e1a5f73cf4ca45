"""Joins the metrics with what they are taken from."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.background.metrics_publishing import MetricsPlan, MetricsPublishing
from gateway.doctor.doctor import Doctor
from gateway.duties import last_runs
from gateway.metrics.collection import Collection, Sources, Tables
from gateway.metrics.event_counts import EventCounts
from gateway.metrics.job_mapping import JobMapping
from gateway.metrics.user_disk import UserDisk

if TYPE_CHECKING:
    from gateway.app.composition import App


class Metrics(NamedTuple):
    """What is collected, and the two parts of it that are fed from outside."""

    collection: Collection
    events: EventCounts
    disk: UserDisk


def metrics_of(app: "App") -> Metrics:
    """Return the numbers of this gateway, counted from now on."""
    settings = app.settings
    tables = Tables(app.users, app.table, app.live_sessions, app.lease_table, app.queue_table, app.usage_table)
    sources = Sources(
        journal_dir=settings.journal_dir,
        last_head_file=settings.last_head_file,
        journal_lag=app.journal.lag_seconds,
        directories={"state": settings.state_dir, "run": settings.run_dir, "cache": settings.cache_dir},
        inventory=app.inventory.read,
        sensors=app.sensors,
        bans=lambda: len(app.throttle.bans()),
        doctor=Doctor(app.doctor_sources).look,
        duties=partial(last_runs, settings.duties_file),
        workers=settings.server.workers,
    )
    events, disk = EventCounts(datetime.now(UTC)), UserDisk()
    return Metrics(Collection(tables, sources, events, disk), events, disk)


def publishing_of(app: "App") -> MetricsPublishing:
    """Return what keeps them while the gateway serves."""
    chosen, metrics = app.settings.metrics, app.metrics
    mapping = JobMapping(Path(chosen.job_mapping_dir)) if chosen.job_mapping_dir else None

    def name_jobs() -> None:
        if mapping is not None:
            mapping.write(app.lease_table.held(), metrics.collection.indices())

    plan = MetricsPlan(
        socket=app.settings.metrics_socket,
        textfile=Path(chosen.textfile) if chosen.textfile else None,
        interval_seconds=chosen.interval,
        user_disk_seconds=chosen.user_disk_interval,
        user_directories=lambda: _volumes(app.settings.state_dir / "volumes"),
        name_jobs=name_jobs,
    )
    return MetricsPublishing(
        metrics.collection, metrics.events, metrics.disk, app.settings.journal_dir, plan, app.watchdog
    )


def _volumes(directory: Path) -> Iterator[tuple[str, Path]]:
    """Name each user's files; a user's name is their directory's."""
    if directory.is_dir():
        yield from ((place.name, place) for place in sorted(directory.iterdir()))
