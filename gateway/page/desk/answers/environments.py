"""A user's own environments: what they are, and what their user may do to them."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gateway.auth.passwords import make_password
from gateway.errors import DevgwError, UsageError
from gateway.gpus.waiting import Place, estimate_text
from gateway.model import Environment, EnvironmentRef, EnvironmentState, UserName, parse_environment_name
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site, acts_of
from gateway.store.load import LoadSample, LoadTable
from gateway.store.usage import HOUR, Sample

answers = Answers()
_LONGEST_EXTENSION = 400 * 86400
_HOURS = 24
"""Of use that are shown."""


@answers.to("environments.mine")
def mine(site: Site, asker: Asker) -> list[dict[str, Any]]:
    """Return the asker's environments."""
    now = datetime.now(UTC)
    places = {str(place.waiter.ref): place for place in site.waiting.places()} if site.queue_table.waiting(now) else {}
    samples = site.usage_table.between(now - _HOURS * HOUR, now, asker.user)
    loads = LoadTable(site.database).between(now - _HOURS * HOUR, now, asker.user)
    return [
        _described(site, one)
        | _queued(places.get(str(one.ref)), now)
        | _used(one, samples, now)
        | _loaded(one, loads, now)
        for one in site.table.all(asker.user)
    ]


@answers.to("environments.start", journaled=True)
def start(site: Site, asker: Asker, name: str) -> None:
    """Start one that is stopped."""
    acts_of(site, asker).environments.start(_own(asker, name))


@answers.to("environments.stop", journaled=True)
def stop(site: Site, asker: Asker, name: str) -> None:
    """Stop one; its files stay."""
    acts_of(site, asker).environments.stop(_own(asker, name))


@answers.to("environments.restart", journaled=True)
def restart(site: Site, asker: Asker, name: str) -> None:
    """Stop one and start it, unless its node would not have it again."""
    ref = _own(asker, name)
    site.environments.require_open_node(site.table.require(ref))
    acts_of(site, asker).environments.stop(ref)
    acts_of(site, asker).environments.start(ref)


@answers.to("environments.extend", journaled=True)
def extend(site: Site, asker: Asker, name: str, seconds: int) -> str:
    """Keep its GPUs for longer, within what the policy allows; return the new end."""
    if not 0 < seconds <= _LONGEST_EXTENSION:
        raise UsageError("duration.bad", f"{seconds} s is no time to extend by", "for example 4h")
    return acts_of(site, asker).gpus.extend(_own(asker, name), seconds).isoformat()


@answers.to("environments.password", journaled=True)
def password(site: Site, asker: Asker, name: str) -> str:
    """Give its notebook another password and return it; it is kept nowhere."""
    made = make_password()
    acts_of(site, asker).environments.set_password(_own(asker, name), made)
    return made


def _own(asker: Asker, name: str) -> EnvironmentRef:
    return EnvironmentRef(UserName(asker.user), parse_environment_name(name))


def _queued(place: "Place | None", now: datetime) -> dict[str, Any]:
    """Say where it stands in the queue for GPUs."""
    if place is None:
        return {"queue": None}
    told = {"position": place.position, "length": place.length, "turn": estimate_text(place.turn_at, now)}
    return {"queue": told | {"asked_at": place.waiter.asked_at.isoformat()}}


def _used(environment: Environment, samples: Sequence[Sample], now: datetime) -> dict[str, Any]:
    """Return the share of each hour that its GPUs computed, oldest first, and the peak of their memory."""
    first = now.replace(minute=0, second=0, microsecond=0) - (_HOURS - 1) * HOUR
    busy: list[float | None] = [None] * _HOURS
    observed, computed, peaks = [0.0] * _HOURS, [0.0] * _HOURS, [0] * _HOURS
    for sample in samples:
        place = int((sample.hour - first) / HOUR)
        if sample.ref == environment.ref and 0 <= place < _HOURS:
            observed[place] += sample.observed_seconds
            computed[place] += sample.busy_seconds
            peaks[place] = max(peaks[place], sample.memory_peak_bytes)
            busy[place] = min(1.0, computed[place] / observed[place]) if observed[place] else None
    return {"busy": busy if any(peaks) or any(busy) else [], "memory_peaks": peaks if any(peaks) else []}


def _loaded(environment: Environment, samples: Sequence[LoadSample], now: datetime) -> dict[str, Any]:
    """Return processors used on average and the peak of memory in each hour, oldest first; None where nobody looked."""
    first = now.replace(minute=0, second=0, microsecond=0) - (_HOURS - 1) * HOUR
    processors: list[float | None] = [None] * _HOURS
    memory: list[int | None] = [None] * _HOURS
    for sample in samples:
        place = int((sample.hour - first) / HOUR)
        if sample.ref == environment.ref and 0 <= place < _HOURS:
            memory[place] = sample.memory_peak_bytes
            if sample.observed_seconds:
                processors[place] = round(sample.cpu_seconds / sample.observed_seconds, 3)
    return {"processors_by_hour": processors, "memory_by_hour": memory}


def _load(site: Site, environment: Environment, now: datetime) -> dict[str, Any]:
    """Return what a running environment reports of itself."""
    with suppress(DevgwError):
        status = site.environments.status(environment.ref, now)
        if status is not None:
            return {"cpu_percent": round(status.cpu_percent, 1), "busy_kernels": status.busy_kernels}
    return {"cpu_percent": None, "busy_kernels": 0}


def _described(site: Site, environment: Environment) -> dict[str, Any]:
    outlook = site.rounds.outlook(environment) if environment.state is EnvironmentState.RUNNING else None
    last = outlook.active_at if outlook else environment.last_active_at
    now = datetime.now(UTC)
    is_running = environment.state is EnvironmentState.RUNNING
    load = _load(site, environment, now) if is_running else {"cpu_percent": None, "busy_kernels": 0}
    return load | {
        "handle": str(environment.ref),
        "name": environment.ref.name,
        "state": environment.state.value,
        "detail": environment.trouble or environment.detail,
        "image": environment.image,
        "gpus": list(environment.gpus),
        "gpu_request": environment.gpu_request,
        "memory_bytes": environment.limits.memory_bytes,
        "cpus": environment.limits.cpus,
        "disk": site.disks.state(environment.ref, environment.limits.disk_bytes).text,
        "datasets": list(environment.datasets),
        "egress": environment.egress,
        "created_at": environment.created_at.isoformat(),
        "last_use": last.isoformat() if last else None,
        "activity": outlook.activity if outlook else "",
        "stops_at": outlook.stop_at.isoformat() if outlook and outlook.stop_at else None,
        "stops_because": outlook.ending.cause if outlook and outlook.ending else "",
    }
