"""Feed a run: its training batches from a position on, and its validation data.

See `loading` for fetching, and `sampler` for the order of samples.
"""

from collections.abc import Generator, Iterator
from typing import Any

import torch

from devgw_runner import loading
from devgw_runner.loader_processes import end_processes, opened
from devgw_runner.own_loader import OwnLoader
from devgw_runner.probe import Prepared
from devgw_runner.sampler import Position, SampleOrder
from devgw_runner.state import Evaluation, Order, RunState, StreamOrder
from devgw_runner.task import batch_samples

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def make_order(prepared: Prepared) -> Order:
    """Decide which process sees which samples when.

    Raises:
        DataError: the data does not fill one batch.
    """
    config, plan, data = prepared.config, prepared.plan, prepared.data
    if prepared.facts.data.length is None:
        return StreamOrder(loading.loader_length(data), batch_samples(prepared.first_look))
    order = SampleOrder(
        length=prepared.facts.data.length,
        batch_size=plan.batch_size.value,
        seed=config.seed,
        rank=prepared.world.data_rank,
        world=prepared.world.data_size,
        last_batch=config.last_batch,
    )
    loading.check_order(order)
    return order


def open_batches(run: RunState, prepared: Prepared) -> Any:
    """Open the training batches at the run's position; return one more of the same shape for warm-up."""
    plan, device = run.plan, run.device
    memory_format = MEMORY_FORMATS[plan.memory_format.value]
    host: Iterator[Any]
    if isinstance(run.order, SampleOrder):
        host = loading.open_dataset(
            prepared.data, run.order, run.position, workers=plan.workers.value, pin=device.type == "cuda"
        )
        first = loading.load_first_batch(prepared.data, run.order)
    else:
        own: OwnLoader = prepared.data
        own.begin(lambda text: run.recorder.event("not-exact", text), strict=run.config.deterministic)
        host = own.batches()
        first = prepared.first_look
    run.batches = loading.DevicePrefetch(host, device, memory_format, ahead=plan.prefetch.value != "off")
    return loading.move_batch(first, device, memory_format)


class _DatasetEvaluation:
    """Goes through a validation data set in order, each process its share; the last batch may be short."""

    def __init__(self, data: Any, prepared: Prepared) -> None:
        self._data = data
        self._plan = prepared.plan
        self._device = prepared.device
        self._order = SampleOrder(
            length=loading.dataset_length(data, "val"),
            batch_size=min(prepared.plan.micro_batch.value, max(1, len(data) // prepared.world.data_size)),
            seed=prepared.config.seed,
            rank=prepared.world.data_rank,
            world=prepared.world.data_size,
            shuffle=False,
            last_batch="eager",
        )
        self.batches: int | None = self._order.batches_per_epoch

    def __iter__(self) -> Generator[Any]:
        host = loading.open_dataset(
            self._data,
            self._order,
            Position(),
            workers=self._plan.workers.value,
            pin=self._device.type == "cuda",
        )
        try:
            for _ in range(self._order.batches_per_epoch):
                yield loading.move_batch(next(host), self._device, MEMORY_FORMATS[self._plan.memory_format.value])
        finally:
            end_processes(host)


class _LoaderEvaluation:
    """Goes through the task's own validation loader."""

    def __init__(self, data: Any, prepared: Prepared) -> None:
        self._data = data
        self._device = prepared.device
        self._format = MEMORY_FORMATS[prepared.plan.memory_format.value]
        self.batches: int | None = loading.loader_length(data)

    def __iter__(self) -> Generator[Any]:
        with opened(self._data) as batches:
            for batch in batches:
                yield loading.move_batch(batch, self._device, self._format)


def open_evaluation(prepared: Prepared) -> Evaluation | None:
    """Open the validation data, None if the task has none."""
    data = prepared.task.data(prepared.config, "val")
    if data is None:
        return None
    return _DatasetEvaluation(data, prepared) if loading.is_map_style(data) else _LoaderEvaluation(data, prepared)
