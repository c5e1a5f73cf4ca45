"""Whose turn it is: GPUs kept for those who wait before somebody, and when a turn may come. Pure.

Those before take in their order what they asked for. One whose wish is not free yet keeps what there is of it, so a
large request is not overtaken for ever by small ones; a wish for another kind of GPU is no obstacle.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice

from gateway.errors import UsageError
from gateway.gpu_requests import GpuRequest, is_of_kind, parse_gpu_request
from gateway.model import Gpu, GpuUuid


class Reservations:
    """Free GPUs, handed out in thought to one waiter after the other; each GPU of a kind is looked at once."""

    def __init__(self, free: Sequence[Gpu], asked: GpuRequest) -> None:
        self._free = free
        self._by_kind: dict[tuple[str, str], Iterator[GpuUuid]] = {}
        self._wanted = frozenset(_matching(free, asked))
        self._room = len(self._wanted)
        self._count = asked.count
        self.kept: set[GpuUuid] = set()

    def keep(self, gpu_request: str) -> None:
        """Keep for a waiter what there is of what they asked for."""
        asked = parsed(gpu_request)
        for uuid in islice(self._unkept(asked), asked.count):
            self.kept.add(uuid)
            self._room -= uuid in self._wanted

    def has_room(self) -> bool:
        """Say whether the request can still be answered from what nobody keeps."""
        return self._room >= self._count

    def _unkept(self, asked: GpuRequest) -> Iterator[GpuUuid]:
        if asked.uuids:
            return (uuid for uuid in _matching(self._free, asked) if uuid not in self.kept)
        kind = (asked.model, asked.profile)
        if kind not in self._by_kind:
            matching = _matching(self._free, asked)
            self._by_kind[kind] = (uuid for uuid in matching if uuid not in self.kept)
        return self._by_kind[kind]


def _matching(gpus: Sequence[Gpu], asked: GpuRequest) -> list[GpuUuid]:
    if asked.uuids:
        wanted = {uuid.lower() for uuid in asked.uuids}
        return [gpu.uuid for gpu in gpus if gpu.uuid.lower() in wanted]
    return [gpu.uuid for gpu in gpus if is_of_kind(gpu, asked)]


def turn_comes_at(
    asked: GpuRequest,
    before: Iterable[str],
    gpus: Sequence[Gpu],
    free: frozenset[GpuUuid],
    ends: Mapping[GpuUuid, datetime | None],
) -> datetime | None:
    """Return when leases that end will have freed enough for those before and for this; None where none can say."""
    matching = [gpu for gpu in gpus if is_of_kind(gpu, asked) or gpu.uuid in asked.uuids]
    rivals = (parsed(text) for text in before)
    needed = asked.count + sum(one.count for one in rivals if any(is_of_kind(gpu, one) for gpu in matching[:1]))
    missing = needed - sum(gpu.uuid in free for gpu in matching)
    known = sorted(end for gpu in matching if (end := ends.get(gpu.uuid)) is not None)
    return known[missing - 1] if 0 < missing <= len(known) else None


@lru_cache(maxsize=4096)
def parsed(gpu_request: str) -> GpuRequest:
    """Read what a waiter asked for; a row that cannot be read asks for nothing."""
    try:
        return parse_gpu_request(gpu_request)
    except UsageError:
        return GpuRequest()
