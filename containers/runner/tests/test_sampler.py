"""The order of samples is a function of seed, epoch and position."""

import itertools

import pytest
from devgw_runner.sampler import Position, SampleOrder, batch_seed

START = Position()


def take(order: SampleOrder, count: int, start: Position = START) -> list:
    return list(itertools.islice(order.requests(start), count))


def walk(order: SampleOrder, steps: int) -> Position:
    position = Position()
    for _ in range(steps):
        position = order.after(position)
    return position


@pytest.mark.parametrize("last_batch", ["drop", "pad", "eager"])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 9, 10, 11, 23])
def test_a_resume_anywhere_continues_the_same_order(steps, last_batch):
    """At the start, in the middle, at the last batch of an epoch, after it, and epochs later."""
    order = SampleOrder(length=43, batch_size=8, seed=3, last_batch=last_batch)
    assert take(order, 12, walk(order, steps)) == take(order, steps + 12)[steps:]


def test_an_epoch_sees_every_sample_once():
    order = SampleOrder(length=40, batch_size=8, seed=0)
    first = [index for request in take(order, 5) for index in request.indices]
    second = [index for request in take(order, 10)[5:] for index in request.indices]
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_processes_see_disjoint_samples_of_the_same_order():
    ranks = [SampleOrder(length=64, batch_size=4, seed=1, rank=rank, world=4) for rank in range(4)]
    whole = SampleOrder(length=64, batch_size=16, seed=1)
    for step, requests in enumerate(zip(*(take(order, 4) for order in ranks), strict=True)):
        joined = [index for request in requests for index in request.indices]
        assert joined == list(take(whole, 4)[step].indices)


@pytest.mark.parametrize(("last_batch", "batches", "size"), [("drop", 5, 8), ("pad", 6, 8), ("eager", 6, 3)])
def test_an_incomplete_last_batch_is_dropped_padded_or_short(last_batch, batches, size):
    order = SampleOrder(length=43, batch_size=8, seed=0, last_batch=last_batch)
    assert order.batches_per_epoch == batches
    assert len(take(order, batches)[-1].indices) == size


def test_a_short_last_batch_leaves_no_process_without_a_sample():
    """A process without a batch would hang the others in their collective."""
    for rank in range(4):
        order = SampleOrder(length=17, batch_size=4, seed=0, rank=rank, world=4, last_batch="eager")
        assert len(take(order, 2)[-1].indices) >= 1


def test_seeds_differ_by_every_ingredient():
    seeds = {batch_seed(*parts) for parts in itertools.product(range(3), repeat=4)}
    assert len(seeds) == 81
    assert all(0 <= seed < 2**63 for seed in seeds)
