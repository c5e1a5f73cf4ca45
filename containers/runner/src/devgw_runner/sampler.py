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
    """How far a run has come. `samples` counts what this epoch consumed over all processes."""

    step: int = 0
    epoch: int = 0
    samples: int = 0

    def after_batch(self, global_batch: int, samples_in_epoch: int) -> "Position":
        """Return the position one optimizer step later; an epoch that is used up starts the next."""
        samples = self.samples + global_batch
        if samples >= samples_in_epoch:
            return Position(step=self.step + 1, epoch=self.epoch + 1, samples=0)
        return replace(self, step=self.step + 1, samples=samples)


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
        whole, rest = divmod(self.length, self.global_batch)
        return whole if self.last_batch == "drop" or not rest else whole + 1

    @property
    def samples_per_epoch(self) -> int:
        """Samples after which an epoch counts as used up: whole global batches, the last one included."""
        return self.batches_per_epoch * self.global_batch

    def requests(self, start: Position) -> Iterator[BatchRequest]:
        """Yield this process's batches from `start` on, epoch after epoch, without end."""
        epoch, first = start.epoch, start.samples // self.global_batch
        while True:
            order = self._permutation(epoch)
            for batch in range(first, self.batches_per_epoch):
                yield BatchRequest(self._slice(order, batch), batch_seed(self.seed, epoch, batch, self.rank))
            epoch, first = epoch + 1, 0

    def _permutation(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.length))
        generator = torch.Generator().manual_seed(batch_seed(self.seed, epoch, 0, -1))
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        return order

    def _slice(self, order: list[int], batch: int) -> tuple[int, ...]:
        begin = batch * self.global_batch
        whole = order[begin : begin + self.global_batch]
        if self.last_batch == "pad":
            whole = [whole[i % len(whole)] for i in range(self.global_batch)]
        # An odd last batch is dealt out round-robin and may differ by one sample between processes.
        if len(whole) < self.global_batch:
            return tuple(whole[self.rank :: self.world]) or (whole[0],)
        return tuple(whole[self.rank * self.batch_size : (self.rank + 1) * self.batch_size])


def batch_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """Return a 63-bit seed that depends on all four and on nothing else."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{batch}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
