"""Fetch batches in the order of `sampler`, from a data set or from the task's own loader, and move them.

How many loader processes are worth it is decided in `plan`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from devgw_runner.batch_tree import map_leaves, moves_itself, walk_leaves
from devgw_runner.errors import DataError
from devgw_runner.loader_processes import end_processes
from devgw_runner.randomness import seeded_for_batch
from devgw_runner.sampler import BatchRequest, Position, SampleOrder
from devgw_runner.signals import shield_loader_process


@runtime_checkable
class StatefulLoader(Protocol):
    """A loader that remembers its own position, such as torchdata's StatefulDataLoader."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def is_map_style(data: object) -> bool:
    """Say whether samples can be fetched by index, which is what an exact resume needs."""
    if isinstance(data, DataLoader | IterableDataset):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def loader_length(loader: object) -> int | None:
    """Return how many batches a loader has, None where it does not know (a DataLoader over a stream raises)."""
    try:
        return len(loader)  # type: ignore[arg-type]  # what has no length raises, which is the answer
    except (TypeError, NotImplementedError):
        return None


def dataset_length(data: Any, split: str) -> int:
    """Return the number of samples.

    Raises:
        DataError: there is none.
    """
    length = len(data)
    if length == 0:
        raise DataError(f"the {split} data is empty", "check the data directory and its mount")
    return length


def check_order(order: SampleOrder) -> None:
    """Refuse data that does not fill one batch.

    Raises:
        DataError: it gives both numbers.
    """
    if order.batches_per_epoch == 0:
        raise DataError(
            f"{order.length} samples are fewer than one batch of {order.global_batch}",
            "lower --batch-size or choose --last-batch pad",
        )


class _RequestedSamples(Dataset[Any]):
    """Answers a BatchRequest with its samples, drawn under the batch's own seed."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self._fetch_many: Callable[[list[int]], list[Any]] | None = getattr(data, "__getitems__", None)

    def __getitems__(self, request: BatchRequest) -> list[Any]:
        if isinstance(self._data, TensorDataset):  # nothing random can happen there
            return self._samples(request.indices)
        with seeded_for_batch(request.seed):
            return self._samples(request.indices)

    def _samples(self, indices: tuple[int, ...]) -> list[Any]:
        if self._fetch_many is not None:
            return self._fetch_many(list(indices))
        return [self._data[index] for index in indices]


class _Requests:
    """The batch sampler of one run: batch requests from a position on, without end."""

    def __init__(self, order: SampleOrder, start: Position) -> None:
        self._order = order
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        return self._order.requests(self._start)


def open_dataset(data: Any, order: SampleOrder, start: Position, *, workers: int, pin: bool) -> Iterator[Any]:
    """Return collated host batches from `start` on; one set of loader processes serves all epochs."""
    loader: DataLoader[Any] = DataLoader(
        _RequestedSamples(data),
        batch_sampler=_Requests(order, start),  # a request stands for its list of indices
        num_workers=workers,
        pin_memory=pin,
        collate_fn=getattr(data, "collate", None) or default_collate,
        worker_init_fn=shield_loader_process if workers else None,
        prefetch_factor=2 if workers else None,
        # Opening a loader draws a seed; from the global generator that would shift a resumed run's dropout.
        generator=torch.Generator(),
    )
    return iter(loader)


def load_first_batch(data: Any, order: SampleOrder) -> Any:
    """Return the first collated batch of the order, fetched in this process."""
    request = next(order.requests(Position()))
    collate: Callable[[list[Any]], Any] = getattr(data, "collate", None) or default_collate
    try:
        return collate(_RequestedSamples(data).__getitems__(request))
    except TypeError as exc:
        first_line = str(exc).splitlines()[0]
        raise DataError(
            f"samples cannot be put into a batch: {first_line}",
            "return tensors, numbers, tuples or dicts of them, or define 'collate' on the data set",
        ) from exc


def move_batch(batch: Any, device: torch.device, memory_format: torch.memory_format) -> Any:
    """Copy a batch to the device without waiting (pinned memory), 4-D floating tensors in `memory_format`.

    Objects move themselves by their own `.to`; what is neither stays as it is.
    """

    def move(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if leaf.dim() == 4 and leaf.is_floating_point():
                return leaf.to(device, non_blocking=True, memory_format=memory_format)
            return leaf.to(device, non_blocking=True)
        return leaf.to(device) if moves_itself(leaf) else leaf

    return map_leaves(batch, move)


class DevicePrefetch:
    """Keeps one batch ahead on a side stream, so that the copy overlaps the step before it.

    Without `ahead` nothing is fetched early: a loader that remembers its own position needs that.
    """

    def __init__(
        self, batches: Iterator[Any], device: torch.device, memory_format: torch.memory_format, *, ahead: bool
    ) -> None:
        self._batches = batches
        self._device = device
        self._format = memory_format
        self._stream = _side_stream(device) if ahead and device.type == "cuda" else None
        self._ahead: Any = None

    def __iter__(self) -> "DevicePrefetch":
        return self

    def close(self) -> None:
        """End the loader's processes; nothing can be fetched afterwards."""
        self._ahead = None
        end_processes(self._batches)

    def __next__(self) -> Any:
        if self._stream is None:
            return move_batch(next(self._batches), self._device, self._format)
        if self._ahead is None:
            self._ahead = self._copy(next(self._batches))
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        batch = self._ahead
        _keep_for_stream(batch, torch.cuda.current_stream(self._device))
        following = next(self._batches, None)
        self._ahead = None if following is None else self._copy(following)
        return batch

    def _copy(self, batch: Any) -> Any:
        with torch.cuda.stream(self._stream):
            return move_batch(batch, self._device, self._format)


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _keep_for_stream(batch: Any, stream: torch.cuda.Stream) -> None:
    """Tell the allocator that `stream` uses the batch, so that its memory is not reused too early."""
    for leaf in walk_leaves(batch):
        if isinstance(leaf, Tensor) or callable(getattr(leaf, "record_stream", None)):
            leaf.record_stream(stream)  # type: ignore[attr-defined]  # asked for in the line above
