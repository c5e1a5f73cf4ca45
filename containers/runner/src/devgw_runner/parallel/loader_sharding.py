"""See that several processes do not all train on the same batches of the task's own loader.

A data set is dealt out by `sampler`; a loader of the task's own must do it itself, and say so.
"""

from collections.abc import Iterator
from typing import Any

from devgw_runner.errors import DataError
from devgw_runner.parallel.world import World

DECLARATION = "shards_by_rank"


def require_sharded(loader: Any, world: World) -> None:
    """Refuse a loader that gives every process the same batches.

    Raises:
        DataError: several processes would train on the same batches, or their shares do not fit this world.
    """
    if not world.is_distributed:
        return
    if world.tensor > 1:
        raise DataError(
            "the task's own loader cannot be dealt out where processes share layers and samples",
            "return the data set itself, or --tensor-parallel 1",
        )
    for part in _parts(loader):
        if getattr(part, DECLARATION, False):
            return
        replicas = _replicas(part)
        if replicas is None:
            continue
        if replicas != world.size:
            raise DataError(
                f"the task's own loader is dealt out to {replicas} processes, these are {world.size}",
                "let Task.data read WORLD_SIZE and RANK from the environment",
            )
        return
    raise DataError(
        f"the task's own loader gives each of {world.size} processes the same batches",
        f"use a DistributedSampler or split_dataset_by_node, or return the data set itself; "
        f"a loader that deals out by RANK says so by {DECLARATION} = True",
    )


def _replicas(part: Any) -> int | None:
    """Torch's DistributedSampler says `num_replicas`, Hugging Face's data sets `_distributed.world_size`."""
    for said in (getattr(part, "num_replicas", None), getattr(getattr(part, "_distributed", None), "world_size", None)):
        if isinstance(said, int):
            return said
    return None


def _parts(loader: Any) -> Iterator[Any]:
    """The loader, and what torch's own classes are made of."""
    pending, seen = [loader], set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        pending += [getattr(part, name, None) for name in ("batch_sampler", "sampler", "dataset")]
