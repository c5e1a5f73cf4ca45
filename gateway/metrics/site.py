"""Gauges of the rest: users, environments, connections, the journal's files, disks, the doctor's findings."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.audit.segments import last_written_at, segments
from gateway.doctor.finding import Level, Report
from gateway.environments.disk_limit import DiskUse
from gateway.metrics import families
from gateway.metrics.families import AnyFamily
from gateway.model import EnvironmentRef, EnvironmentState
from gateway.store.sessions import SessionTraffic


def users(enabled: int, disabled: int) -> Iterator[AnyFamily]:
    """Yield users by state."""
    yield _counted(families.USERS, {"enabled": enabled, "disabled": disabled})


def environments(states: Mapping[str, int], troubled: int) -> Iterator[AnyFamily]:
    """Yield environments by state; a state in which none is has its 0."""
    yield _counted(families.ENVIRONMENTS, {state.value: states.get(state.value, 0) for state in EnvironmentState})
    yield families.TROUBLED.of(troubled)


def connections(live: Sequence[SessionTraffic]) -> Iterator[AnyFamily]:
    """Yield who is connected and what they have open. A channel's text begins with its kind."""
    yield families.CONNECTIONS.of(len(live))
    yield _counted(families.USER_CONNECTIONS, Counter(one.user for one in live))
    kinds = Counter(channel.partition(" ")[0] for one in live for channel in one.channels)
    yield _counted(families.CHANNELS, kinds)


def journal(directory: Path, last_head_file: Path, lag_seconds: float) -> Iterator[AnyFamily]:
    """Yield how far the journal is and when its end was signed. Raises: OSError."""
    yield families.JOURNAL_LAG.of(lag_seconds)
    files = segments(directory)
    yield families.JOURNAL_BYTES.of(sum(segment.path.stat().st_size for segment in files))
    if files:
        yield families.JOURNAL_LAST.of(last_written_at(directory).timestamp())
    if last_head_file.exists():
        yield families.JOURNAL_HEAD.of(last_head_file.stat().st_mtime)


def disks(directories: Mapping[str, Path]) -> Iterator[AnyFamily]:
    """Yield the room where each directory lies, as `df` counts it for others than root. Raises: OSError."""
    free, size = families.DISK_FREE.new(), families.DISK_SIZE.new()
    for name, directory in directories.items():
        if directory.exists():
            found = os.statvfs(directory)
            free.add_metric([name], found.f_bavail * found.f_frsize)
            size.add_metric([name], found.f_blocks * found.f_frsize)
    yield from (free, size)


def environment_disks(uses: Mapping[EnvironmentRef, DiskUse]) -> Iterator[AnyFamily]:
    """Yield size and use of the disks that environments have of their own; of very many the fullest alone."""
    made = [family.new() for family in _OF_DISKS]
    fullest = sorted(uses.items(), key=lambda pair: pair[1].percent, reverse=True)[:_MOST_DISKS]
    for ref, use in sorted(fullest):
        numbers = (use.size_bytes, use.used_bytes, use.inodes, use.used_inodes)
        for family, number in zip(made, numbers, strict=True):
            family.add_metric([ref.user, str(ref)], number)
    yield from made


def doctor(report: Report, at: float) -> Iterator[AnyFamily]:
    """Yield the last round's findings."""
    yield _counted(families.DOCTOR_FINDINGS, report.counts())
    finding = families.DOCTOR_FINDING.new()
    worst: dict[str, Level] = {}
    for found in report.findings:
        if found.level is not Level.OK and _RANK[found.level] > _RANK[worst.get(found.check, Level.OK)]:
            worst[found.check] = found.level
    for check, level in worst.items():
        finding.add_metric([check, level.value], 1)
    yield finding
    yield families.DOCTOR_ROUND.of(at)


_MOST_DISKS = 250
_OF_DISKS = (
    families.ENVIRONMENT_DISK_SIZE,
    families.ENVIRONMENT_DISK_USED,
    families.ENVIRONMENT_DISK_INODES,
    families.ENVIRONMENT_DISK_USED_INODES,
)
_RANK = {Level.OK: 0, Level.UNKNOWN: 1, Level.WARNING: 2, Level.FAILURE: 3}


def _counted(declared: families.Family, counts: Mapping[str, float]) -> AnyFamily:
    made = declared.new()
    for label, count in sorted(counts.items()):
        made.add_metric([label], count)
    return made
