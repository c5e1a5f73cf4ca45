"""Choose free GPUs for a request, or say why there are none. Pure: what is held is told, nothing is taken."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from gateway.errors import LeaseError, QueuedError
from gateway.gpu_requests import GpuRequest, is_of_kind
from gateway.gpus.reading import Reading
from gateway.model import EnvironmentRef, Gpu, GpuUuid

_WHO_HOLDS = "'devgw gpus' shows who holds them"


@dataclass(frozen=True, slots=True)
class Situation:
    """Which GPUs cannot be had now: held by somebody, out of use for a reason, or kept for those who wait before."""

    holders: Mapping[GpuUuid, EnvironmentRef] = field(default_factory=dict)
    unusable: Mapping[GpuUuid, str] = field(default_factory=dict)
    kept: AbstractSet[GpuUuid] = frozenset()

    def is_free(self, uuid: GpuUuid) -> bool:
        """Say whether somebody could have it now."""
        return uuid not in self.holders and uuid not in self.unusable and uuid not in self.kept


def choose(asked: GpuRequest, reading: Reading, now: Situation) -> tuple[GpuUuid, ...]:
    """Return the UUIDs to lease, in the inventory's order.

    Raises:
        LeaseError: `gpu.absent`, `gpu.too-many`, `gpu.unknown`.
        QueuedError: `gpu.none-free`.
    """
    if not reading.gpus:
        raise LeaseError("gpu.absent", _absent(reading), "create it without one: --gpu 0")
    if asked.uuids:
        return _named(asked.uuids, reading, now)
    matching = [gpu for gpu in reading.gpus if is_of_kind(gpu, asked)]
    noun = _noun(asked)
    if len(matching) < asked.count:
        has = f"has {len(matching)}" if matching else "has none"
        raise LeaseError("gpu.too-many", f"{asked.count} {noun} asked, {reading.place} {has}", _what_there_is(reading))
    free = [gpu for gpu in matching if now.is_free(gpu.uuid)]
    if len(free) < asked.count:
        raise QueuedError("gpu.none-free", _none_free(asked, len(free), matching, now), _WHO_HOLDS)
    return tuple(gpu.uuid for gpu in free[: asked.count])


def _named(uuids: tuple[GpuUuid, ...], reading: Reading, now: Situation) -> tuple[GpuUuid, ...]:
    known = {gpu.uuid.lower(): gpu.uuid for gpu in reading.gpus}
    chosen = []
    for asked in uuids:
        uuid = known.get(asked.lower())
        if uuid is None:
            raise LeaseError("gpu.unknown", f"{reading.place} has no {asked}", "'devgw gpus' lists what it has")
        if not now.is_free(uuid):
            raise QueuedError("gpu.none-free", _why_not(uuid, now), _WHO_HOLDS)
        chosen.append(uuid)
    return tuple(chosen)


def _why_not(uuid: GpuUuid, now: Situation) -> str:
    if uuid in now.holders:
        return f"{uuid} is leased to {now.holders[uuid]}"
    if uuid in now.unusable:
        return f"{uuid} is out of use: {now.unusable[uuid]}"
    return f"{uuid} is kept for somebody who waits for it already"


def _noun(asked: GpuRequest) -> str:
    kind = f"{asked.model.upper()} " if asked.model else ""
    if asked.profile:
        return f"{asked.profile} slice"
    return f"{kind}GPU" if asked.count == 1 else f"{kind}GPUs"


def _none_free(asked: GpuRequest, free: int, matching: list[Gpu], now: Situation) -> str:
    total = len(matching)
    leased = sum(gpu.uuid in now.holders for gpu in matching)
    unusable = sum(gpu.uuid in now.unusable and gpu.uuid not in now.holders for gpu in matching)
    reasons = [f"{leased} of {total} leased"]
    reasons += [f"{unusable} out of use"] if unusable else []
    kept = total - free - leased - unusable
    reasons += [f"{kept} kept for those who wait already"] if kept else []
    if free:
        return f"{asked.count} {_noun(asked)} asked, {free} free ({', '.join(reasons)})"
    return f"no free {asked.profile + ' slice' if asked.profile else 'GPU'} ({', '.join(reasons)})"


def _absent(reading: Reading) -> str:
    return f"{reading.place} has no GPU" + (f" ({'; '.join(reading.notes)})" if reading.notes else "")


def _what_there_is(reading: Reading) -> str:
    kinds: dict[str, int] = {}
    for gpu in reading.gpus:
        kind = gpu.mig_profile or gpu.name
        kinds[kind] = kinds.get(kind, 0) + 1
    return "it has " + ", ".join(f"{count} × {kind}" for kind, count in kinds.items())  # noqa: RUF001 a multiplication sign
