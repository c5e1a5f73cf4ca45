"""GPUs, people and time: who holds and held what, how busy it was, and what is held and idle."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zlib import crc32

from gateway.audit.display import printable
from gateway.gpus.usage import Period, Span, account
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site
from gateway.readings import OfEach, Shared
from gateway.store.usage import HOUR, Sample

answers = Answers()
_DAYS = (1, 7, 30)
_SPANS_OF_A_GPU = 300
_IDLE_SHARE = 0.02
_HUES = 6
_DISKS_MAX = 500
_IDLE_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span within a period: where it lies, in thousandths, and the share of the observed time that it computed.

    `is_idle` says that it was left alone for an hour or more: to its end, or until now where it has none.
    """

    span: Span
    left: int
    width: int
    busy: float | None
    is_idle: bool


@answers.to("holdings.timeline", level="auditor")
def timeline(site: Site, _asker: Asker, days: int = 1) -> dict[str, Any]:
    """Return each GPU with its spans, and each person's hours, over the last day, week or month."""
    return look(site, days)


def look(site: Site, days: int = _DAYS[0]) -> dict[str, Any]:
    """Return the same for whoever may see it."""
    return dict(_TIMELINES.of(site)[days if days in _DAYS else _DAYS[0]].get())


def _timeline(site: Site, days: int) -> dict[str, Any]:
    now = datetime.now(UTC)
    period = Period(now - timedelta(days=days), now, now)
    past = [Span(one.gpu, one.ref, one.leased_at, one.ended_at) for one in site.lease_table.past(period.since)]
    held = [Span(one.gpu, one.ref, one.leased_at) for one in site.lease_table.held()]
    samples = site.usage_table.between(period.since, period.until)
    reading, situation = site.leases.situation()
    by_gpu = _by_gpu([*past, *held], samples, period)
    rows = [
        {
            "uuid": gpu.uuid,
            "name": printable(f"{gpu.name} {gpu.mig_profile}".strip()),
            "index": gpu.index,
            "out_of_use": printable(situation.unusable.get(gpu.uuid, "")),
            **_spans(by_gpu.pop(gpu.uuid, [])),
        }
        for gpu in reading.gpus
    ]
    rows += [
        {"uuid": uuid, "name": "not there any more", "index": "", "out_of_use": "", **_spans(stretches)}
        for uuid, stretches in by_gpu.items()
    ]
    people = [
        {
            "user": printable(one.key),
            "leases": one.leases,
            "leased_hours": round(one.leased_seconds / 3600, 1),
            "used_hours": None if one.used_seconds is None else round(one.used_seconds / 3600, 1),
        }
        for one in account([*past, *held], samples, period, "user")
    ]
    begin, end = period.since.isoformat(), period.until.isoformat()
    return {
        "since": begin,
        "until": end,
        "days": days,
        "gpus": rows,
        "people": people[:500],
        "disks": _disks(site),
        "notes": list(reading.notes),
    }


def _disks(site: Site) -> list[dict[str, str]]:
    """Return the disks that environments have of their own, the fullest first; those that nothing keeps come last."""
    states = [(one.ref, site.disks.state(one.ref, one.limits.disk_bytes)) for one in site.table.all()]
    sized = [(ref, state) for ref, state in states if state.size_bytes]
    sized.sort(key=lambda pair: pair[1].use.percent if pair[1].use else -1, reverse=True)
    return [{"environment": printable(str(ref)), "disk": state.text} for ref, state in sized[:_DISKS_MAX]]


def _timelines(site: Site) -> dict[int, Shared[dict[str, Any]]]:
    return {days: Shared(partial(_timeline, site, days)) for days in _DAYS}


_TIMELINES = OfEach(_timelines)


def _by_gpu(spans: Sequence[Span], samples: Sequence[Sample], period: Period) -> dict[str, list[Stretch]]:
    observed: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        observed[sample.gpu, str(sample.ref)].append(sample)
    found: defaultdict[str, list[Stretch]] = defaultdict(list)
    for span in sorted(spans, key=lambda one: one.since, reverse=True):
        if period.seconds_of(span.since, span.until) > 0 and len(found[span.gpu]) < _SPANS_OF_A_GPU:
            found[span.gpu].append(stretch(span, observed[span.gpu, str(span.ref)], period))
    return {gpu: stretches for gpu, stretches in found.items() if stretches}


def stretch(span: Span, samples: Sequence[Sample], period: Period) -> Stretch:
    """Place a span within a period, and say how busy it was as far as anybody looked."""
    whole = (period.until - period.since).total_seconds()
    left = max(0.0, (span.since - period.since).total_seconds()) / whole
    width = period.seconds_of(span.since, span.until) / whole
    end = span.until or period.now
    within = [one for one in samples if one.hour < end and one.hour + HOUR > span.since]
    late = _busy_share([one for one in within if one.hour + HOUR > end - _IDLE_AFTER])
    is_idle = late is not None and late < _IDLE_SHARE and end - span.since >= _IDLE_AFTER
    return Stretch(span, round(left * 1000), max(2, round(width * 1000)), _busy_share(within), is_idle)


def _busy_share(samples: Sequence[Sample]) -> float | None:
    seconds = sum(one.observed_seconds for one in samples)
    return sum(one.busy_seconds for one in samples) / seconds if seconds else None


def _spans(stretches: Sequence[Stretch]) -> dict[str, Any]:
    described = [
        {
            "user": printable(one.span.ref.user),
            "environment": printable(str(one.span.ref)),
            "hue": crc32(one.span.ref.user.encode()) % _HUES,
            "since": one.span.since.isoformat(),
            "until": one.span.until.isoformat() if one.span.until else None,
            "left": one.left,
            "width": one.width,
            "busy_percent": None if one.busy is None else round(100 * one.busy),
            "idle": one.is_idle,
        }
        for one in stretches
    ]
    return {"spans": described, "holder": next((one for one in described if one["until"] is None), None)}
