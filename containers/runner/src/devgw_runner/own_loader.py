"""The task's own loader: gone through again and again, isolated in its randomness, and brought back after a stop.

A loader with `state_dict` and `load_state_dict` goes on by itself. Any other is replayed: each pass begins under a
seed of its own, so that an order which was drawn once is drawn again; digests of the batches prove that it was.
"""

import copy
import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from devgw_runner.batch_tree import PLAIN, walk_leaves
from devgw_runner.errors import DataError
from devgw_runner.generators import read_states, set_states
from devgw_runner.loader_processes import end_processes, forget_iterator
from devgw_runner.loading import StatefulLoader, loader_length
from devgw_runner.randomness import seeded_for_batch
from devgw_runner.sampler import batch_seed
from devgw_runner.task import batch_samples

LOADER_STREAM = -2  # beside the ranks, in the seeds of `sampler`
DIGESTED_ELEMENTS = 64

Say = Callable[[str], None]


@dataclass
class Cursor:
    """How far the loader has come: whole passes, then batches and samples of this one.

    `digest` covers every batch of this pass, `firsts` the first batch of each pass. `batch` is the size of a batch.
    """

    passes: int = 0
    batches: int = 0
    samples: int = 0
    digest: str = ""
    firsts: list[str] = field(default_factory=list)
    batch: int = 0
    length: int | None = None


class OwnLoader:
    """Delivers batches of `loader` without end; `state_dict` says where the last delivered one was."""

    def __init__(self, loader: Iterable[Any], seed: int) -> None:
        self.loader = loader
        self.cursor = Cursor(length=loader_length(loader))
        self._seed = seed
        self.is_stateful = isinstance(loader, StatefulLoader)
        self._is_one_shot = iter_is_self(loader)
        self._iterator: Iterator[Any] | None = None
        self._kept: list[Any] = []  # looked at, not delivered yet
        self._random: dict[str, Any] = {}
        self._generators: dict[str, Any] = {}
        self._untouched = copy.deepcopy(loader.state_dict()) if isinstance(loader, StatefulLoader) else None
        self._resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        if self.cursor.length is None:
            raise TypeError("the loader has no length")
        return self.cursor.length

    def look(self) -> Any:
        """Return the first batch, which stays the first to be delivered.

        Raises:
            DataError: there is none.
        """
        self._open_pass()
        first = self._fetch()
        if first is None:
            raise DataError("the train data yielded no batch", "check the loader that Task.data returns")
        self._kept = [first]
        return first

    def begin(self, say: Say, *, strict: bool) -> None:
        """Come to where the loaded state says, if one was loaded; `say` what is then not exact.

        Raises:
            DataError: with `strict`, the order cannot be replayed.
        """
        saved, self._resumed = self._resumed, None
        if saved is None:
            return
        there = Cursor(**saved["cursor"])
        looked_at = digest_of(self._kept[0]) if self._kept else ""
        if self.is_stateful and saved["inner"] is not None:
            self._go_on(saved, there)
        else:
            for complaint in self._replay(saved, there, looked_at):
                if strict:
                    hint = "give it state_dict and load_state_dict, or a seed of its own; or --no-deterministic"
                    raise DataError(f"the task's own loader cannot be replayed: {complaint}", hint)
                say(f"the task's own loader cannot be replayed: {complaint}: not bit-exact")

    def batches(self) -> Iterator[Any]:
        """Yield batches without end."""
        try:
            while True:
                yield self._next()
        finally:
            self.close()

    def close(self) -> None:
        """End the loader's processes."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None and not self._is_one_shot:
            end_processes(iterator)
            forget_iterator(self.loader, iterator)

    def state_dict(self) -> dict[str, Any]:
        """Return where the last delivered batch was."""
        if self._resumed is not None:
            return self._resumed
        inner = self._untouched
        if inner is None and isinstance(self.loader, StatefulLoader):
            inner = self.loader.state_dict()
        return {
            "cursor": asdict(self.cursor),
            "random": self._random,
            "generators": read_states(self.loader) if self.is_stateful else self._generators,
            "inner": inner,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember where to go on; `begin` goes there."""
        self._resumed = state if "cursor" in state else None

    # ------------------------------------------------------------------ one batch

    def _next(self) -> Any:
        ended = 0
        while True:
            batch = self._kept.pop() if self._kept else self._fetch()
            if batch is not None:
                self._count(batch)
                return batch
            # One empty pass is the rest of one that ended with the batch before a stop.
            ended += 1
            if self._is_one_shot:
                raise DataError(
                    f"the train data is an iterator that ended after {self.cursor.batches} batches",
                    "return something that can be gone through again, or set --steps",
                )
            if ended > 1 and not self.cursor.batches:
                raise DataError("the train data yielded no batch", "check the loader that Task.data returns")
            self.close()
            self.cursor.passes, self.cursor.batches, self.cursor.samples = self.cursor.passes + 1, 0, 0
            self.cursor.digest = ""
            self._open_pass()

    def _fetch(self) -> Any:
        """Return the next batch of this pass, None at its end; drawn from the loader's own randomness."""
        with self._own_randomness():
            return next(self._iterator, None) if self._iterator is not None else None

    def _count(self, batch: Any) -> None:
        cursor, digest = self.cursor, digest_of(batch)
        if not cursor.batches:
            cursor.firsts = [*cursor.firsts[: cursor.passes], digest]
        cursor.digest = hashlib.blake2b(f"{cursor.digest}{digest}".encode(), digest_size=8).hexdigest()
        cursor.batches += 1
        cursor.samples += batch_samples(batch)
        cursor.batch = cursor.batch or batch_samples(batch)
        self._untouched = None

    # ------------------------------------------------------------------ a pass

    def _open_pass(self, *, seeded: bool = True) -> None:
        if seeded:
            self._generators = copy.deepcopy(read_states(self.loader))
            self._random = _seeded(batch_seed(self._seed, self.cursor.passes, 0, LOADER_STREAM))
            for part in _parts(self.loader):
                set_epoch = getattr(part, "set_epoch", None)
                if callable(set_epoch):
                    set_epoch(self.cursor.passes)
        with self._own_randomness():
            self._iterator = iter(self.loader)

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Let the global generators be the loader's while the block runs: training must not notice it."""
        before = _host_state()
        _set_host_state(self._random)
        try:
            yield
        finally:
            self._random = _host_state()
            _set_host_state(before)

    # ------------------------------------------------------------------ after a stop

    def _go_on(self, saved: dict[str, Any], there: Cursor) -> None:
        """Give a stateful loader its state."""
        self.close()
        self._kept = []
        self.cursor = there
        self._random = saved["random"]
        set_states(self.loader, saved["generators"])
        with self._own_randomness():
            self.loader.load_state_dict(copy.deepcopy(saved["inner"]))  # type: ignore[attr-defined]  # it is a StatefulLoader
        self._untouched = saved["inner"]
        self._open_pass(seeded=False)
        self._random = saved["random"]  # opening may have drawn, which it had not before

    def _replay(self, saved: dict[str, Any], there: Cursor, looked_at: str) -> Iterator[str]:
        """Go through what was delivered before; yield what does not come as it came then."""
        size = batch_samples(self._kept[0]) if self._kept else there.batch
        resized = bool(there.batch) and size != there.batch
        if resized:
            yield f"its batches hold {size} samples, {there.batch} before"
        elif there.firsts and looked_at != there.firsts[0]:
            yield "its first batch is not what it was"
        if there.passes and _keeps_processes(self.loader):
            yield "its processes persist and keep random state of their own"
        if there.passes:
            is_over = there.batches == there.length and not saved["generators"] and not resized
            yield from self._enter_passes(there, there.passes + is_over, quiet=resized)
            self.close()
            self._kept = []
            self.cursor = Cursor(passes=there.passes, firsts=there.firsts, batch=there.batch, length=self.cursor.length)
            if is_over:
                # The pass was over but for its end: the next one begins.
                self.cursor.passes += 1
                self._open_pass()
                return
            set_states(self.loader, saved["generators"])
            self._open_pass()
        yield from self._skip(there, size if resized else 0)

    def _enter_passes(self, there: Cursor, until: int, *, quiet: bool) -> Iterator[str]:
        """Begin each earlier pass, for loaders that count them; skipped where that would start processes."""
        if self._is_one_shot or _process_count(self.loader):
            return
        for number in range(1, until):
            self.close()
            self.cursor.passes = number
            self._open_pass()
            first = self._fetch()
            came = digest_of(first) if first is not None else ""
            if not quiet and number < len(there.firsts) and not self._generators and came != there.firsts[number]:
                yield f"pass {number} begins otherwise than it did"
                return

    def _skip(self, there: Cursor, resized: int) -> Iterator[str]:
        """Pass over what this pass had delivered, counted in samples where batches now hold `resized` of them."""
        while self.cursor.samples + resized <= there.samples if resized else self.cursor.batches < there.batches:
            batch = self._kept.pop() if self._kept else self._fetch()
            if batch is None:
                yield f"pass {there.passes} ended after {self.cursor.batches} of {there.batches} batches"
                return
            self._count(batch)
        if not resized and self.cursor.digest != there.digest:
            yield f"the batches of pass {there.passes} are not what they were"
        self.cursor.batch = resized or self.cursor.batch


def iter_is_self(loader: Iterable[Any]) -> bool:
    """Say whether the data is an iterator, which can be gone through once only."""
    return isinstance(loader, Iterator)


def digest_of(batch: Any) -> str:
    """Return a digest of a sample of every tensor of a batch: cheap, and enough to tell orders apart."""
    digest = hashlib.blake2b(digest_size=8)
    for leaf in walk_leaves(batch):
        if not isinstance(leaf, Tensor):
            digest.update(_digest_object(leaf).encode())
            continue
        if leaf.layout is not torch.strided:
            digest.update(repr(leaf).encode())
            continue
        flat = leaf.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // DIGESTED_ELEMENTS)].cpu().contiguous()
        digest.update(f"{tuple(leaf.shape)} {leaf.dtype}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest_object(leaf: Any) -> str:
    """Digest what is no tensor: plain values by their text, others, such as graphs, by what they hold."""
    if isinstance(leaf, PLAIN):
        return repr(leaf)
    inside = (
        leaf.to_dict() if callable(getattr(leaf, "to_dict", None)) else vars(leaf) if hasattr(leaf, "__dict__") else {}
    )
    return type(leaf).__name__ + (digest_of(dict(inside)) if inside else "")


def _parts(loader: object) -> list[object]:
    """The loader, and what of it torch's own classes give an epoch."""
    found: list[object] = [loader]
    for name in ("batch_sampler", "sampler", "dataset"):
        found += [part for owner in list(found) if (part := getattr(owner, name, None)) is not None]
    return list({id(part): part for part in found}.values())


def _process_count(loader: object) -> int:
    return loader.num_workers if isinstance(loader, DataLoader) else 0


def _keeps_processes(loader: object) -> bool:
    return isinstance(loader, DataLoader) and loader.num_workers > 0 and loader.persistent_workers


def _host_state() -> dict[str, Any]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    return {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}


def _set_host_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002 - data sets draw from the global generator, so it is the one to keep
    torch.set_rng_state(state["torch"])


def _seeded(seed: int) -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators after seeding, without touching them."""
    with seeded_for_batch(seed):
        return _host_state()
