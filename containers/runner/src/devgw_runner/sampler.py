"""The order of samples, as a function of (seed, epoch, position): what makes a resume exact.

Fetching the samples is left to `loading`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch


@dataclass(frozen=True)
class Position:
    """How far a run has come. `samples` counts what this epoch consumed over all processes.

    `batch` is the global batch of the last step, so that a resume notices another.
    """

    step: int = 0
    epoch: int = 0
    samples: int = 0
    batch: int = 0


@dataclass(frozen=True)
class BatchRequest:
    """The sample indices of one process's batch, and the seed of its augmentation."""

    indices: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class SampleOrder:
    """Which process sees which samples when. `batch_size` is per process."""

    length: int
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    shuffle: bool = True
    last_batch: Literal["drop", "pad", "eager"] = "drop"

    @property
    def global_batch(self) -> int:
        return self.batch_size * self.world

    @property
    def batches_per_epoch(self) -> int:
        return self.batches_left(0)

    def batches_left(self, samples: int) -> int:
        """Return how many batches an epoch still has after `samples`, which may be no multiple of a batch."""
        whole, rest = divmod(max(0, self.length - samples), self.global_batch)
        return whole if self.last_batch == "drop" or not rest else whole + 1

    def after(self, position: Position) -> Position:
        """Return the position one optimizer step later; an epoch that is used up starts the next."""
        samples = position.samples + self.global_batch
        return self.resumed(replace(position, step=position.step + 1, samples=samples, batch=self.global_batch))

    def resumed(self, position: Position) -> Position:
        """Return where to go on: at the same sample, or in the next epoch if no batch is left in this one."""
        if self.batches_left(position.samples):
            return position
        return replace(position, epoch=position.epoch + 1, samples=0)

    def last_step(self, position: Position, epochs: int) -> int:
        """Return the step at which `epochs` are over, counted from a position that another batch may have reached."""
        if position.epoch >= epochs:
            return position.step
        left = self.batches_left(position.samples) + (epochs - position.epoch - 1) * self.batches_per_epoch
        return position.step + left

    def requests(self, start: Position) -> Iterator[BatchRequest]:
        """Yield this process's batches from `start` on, epoch after epoch, without end."""
        epoch, begin = start.epoch, start.samples
        while True:
            order = self._permutation(epoch)
            for batch in range(self.batches_left(begin)):
                offset = begin + batch * self.global_batch
                yield BatchRequest(self._slice(order, offset), batch_seed(self.seed, epoch, offset, self.rank))
            epoch, begin = epoch + 1, 0

    def _permutation(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(batch_seed(self.seed, epoch, 0, -1))
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order

    def _slice(self, order: list[int], begin: int) -> tuple[int, ...]:
        whole = order[begin : begin + self.global_batch]
        if self.last_batch == "pad":
            whole = [whole[i % len(whole)] for i in range(self.global_batch)]
        # An odd last batch is dealt out round-robin and may differ by one sample between processes.
        if len(whole) < self.global_batch:
            return tuple(whole[self.rank :: self.world]) or (whole[0],)
        return tuple(whole[self.rank * self.batch_size : (self.rank + 1) * self.batch_size])


def batch_seed(seed: int, epoch: int, offset: int, rank: int) -> int:
    """Return a 63-bit seed that depends on all four and on nothing else."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{offset}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
