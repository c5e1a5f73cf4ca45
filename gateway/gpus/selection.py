"""Choose free GPUs for a request, or say why there are none. Pure: what is held is told, nothing is taken."""

import re
from collections.abc import Mapping
from functools import lru_cache

from gateway.errors import LeaseError
from gateway.gpus.reading import Reading
from gateway.gpus.requests import GpuRequest
from gateway.model import EnvironmentRef, Gpu, GpuUuid

_WHO_HOLDS = "'devgw gpus' shows who holds them"


def choose(asked: GpuRequest, reading: Reading, holders: Mapping[GpuUuid, EnvironmentRef]) -> tuple[GpuUuid, ...]:
    """Return the UUIDs to lease, in the inventory's order.

    Raises:
        LeaseError: `gpu.absent`, `gpu.too-many`, `gpu.none-free`, `gpu.unknown`, `gpu.taken`.
    """
    if not reading.gpus:
        raise LeaseError("gpu.absent", _absent(reading), "create it without one: --gpu 0")
    if asked.uuids:
        return _named(asked.uuids, reading, holders)
    matching = [gpu for gpu in reading.gpus if _is_of_kind(gpu, asked)]
    noun = _noun(asked)
    if len(matching) < asked.count:
        has = f"has {len(matching)}" if matching else "has none"
        raise LeaseError("gpu.too-many", f"{asked.count} {noun} asked, this host {has}", _what_there_is(reading))
    free = [gpu for gpu in matching if gpu.uuid not in holders]
    if len(free) < asked.count:
        leased = len(matching) - len(free)
        raise LeaseError("gpu.none-free", _none_free(asked, len(free), leased, len(matching)), _WHO_HOLDS)
    return tuple(gpu.uuid for gpu in free[: asked.count])


def _named(
    uuids: tuple[GpuUuid, ...], reading: Reading, holders: Mapping[GpuUuid, EnvironmentRef]
) -> tuple[GpuUuid, ...]:
    known = {gpu.uuid.lower(): gpu.uuid for gpu in reading.gpus}
    chosen = []
    for asked in uuids:
        uuid = known.get(asked.lower())
        if uuid is None:
            raise LeaseError("gpu.unknown", f"this host has no {asked}", "'devgw gpus' lists what it has")
        if uuid in holders:
            raise LeaseError("gpu.taken", f"{uuid} is leased to {holders[uuid]}", _WHO_HOLDS)
        chosen.append(uuid)
    return tuple(chosen)


def _is_of_kind(gpu: Gpu, asked: GpuRequest) -> bool:
    """Match a MIG profile exactly and a model by whole words: `a10` is not in `NVIDIA A100`."""
    if asked.profile:
        return gpu.mig_profile == asked.profile
    if gpu.mig_profile or gpu.uuid.startswith("MIG-"):
        return False
    return not asked.model or _words(asked.model) <= _words(gpu.name)


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower()))


def _noun(asked: GpuRequest) -> str:
    kind = f"{asked.model.upper()} " if asked.model else ""
    if asked.profile:
        return f"{asked.profile} slice"
    return f"{kind}GPU" if asked.count == 1 else f"{kind}GPUs"


def _none_free(asked: GpuRequest, free: int, leased: int, total: int) -> str:
    if free:
        return f"{asked.count} {_noun(asked)} asked, {free} free ({leased} of {total} leased)"
    return f"no free {asked.profile + ' slice' if asked.profile else 'GPU'} ({leased} of {total} leased)"


def _absent(reading: Reading) -> str:
    return "this host has no GPU" + (f" ({'; '.join(reading.notes)})" if reading.notes else "")


def _what_there_is(reading: Reading) -> str:
    kinds: dict[str, int] = {}
    for gpu in reading.gpus:
        kind = gpu.mig_profile or gpu.name
        kinds[kind] = kinds.get(kind, 0) + 1
    return "it has " + ", ".join(f"{count} × {kind}" for kind, count in kinds.items())  # noqa: RUF001 a multiplication sign
