"""Batches come out the same, whoever loads them; wrong ones are refused."""

import itertools

import pytest
import torch
from devgw_runner.batch_tree import split_batch
from devgw_runner.errors import DataError
from devgw_runner.loading import (
    check_order,
    dataset_length,
    load_first_batch,
    move_batch,
    open_dataset,
)
from devgw_runner.sampler import Position, SampleOrder
from devgw_runner.task import batch_samples, check_batch
from tiny import Points

START = Position()
ORDER = SampleOrder(length=40, batch_size=8, seed=5)


def batches(workers: int, count: int, start: Position = START) -> list:
    opened = open_dataset(Points(40, 1, 0.5), ORDER, start, workers=workers, pin=False)
    return [batch[0] for batch in itertools.islice(opened, count)]


def test_augmentation_does_not_depend_on_the_number_of_loader_processes():
    for alone, shared in zip(batches(0, 7), batches(2, 7), strict=True):
        assert torch.equal(alone, shared)


def test_augmentation_differs_between_epochs_and_resumes_exactly():
    all_batches = batches(0, 10)
    assert not torch.equal(all_batches[0].sort(0)[0], all_batches[5].sort(0)[0])
    resumed = batches(0, 3, Position(step=7, epoch=1, samples=16))
    for expected, got in zip(all_batches[7:], resumed, strict=True):
        assert torch.equal(expected, got)


def test_loading_leaves_the_training_randomness_alone():
    before = torch.get_rng_state()
    batches(0, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("batch", [(torch.zeros(5, 2), torch.zeros(5)), {"x": torch.zeros(5, 2)}, [torch.zeros(5)]])
def test_a_batch_is_split_along_its_samples(batch):
    parts = split_batch(batch, 2, batch_samples(batch))
    assert [batch_samples(part) for part in parts] == [2, 2, 1]
    assert type(parts[0]) is type(batch)
    assert split_batch(batch, 5, 5) == [batch]


def test_images_take_the_memory_format_and_labels_do_not():
    images, labels = move_batch(
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.long)),
        torch.device("cpu"),
        torch.channels_last,
    )
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.is_contiguous()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (["a", "b"], "holds a str"),
        (None, "holds a NoneType"),
        (torch.tensor(1.0), "no samples"),
        ([], "no samples"),
        ((torch.zeros(3), torch.zeros(4)), r"disagree on its size: \[3, 4\]"),
    ],
)
def test_a_batch_of_the_wrong_type_is_refused(batch, message):
    with pytest.raises(DataError, match=message):
        check_batch(batch)


class Strange:
    """Samples that no collate function knows."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return object()


def test_samples_that_cannot_be_collated_are_refused():
    with pytest.raises(DataError, match="cannot be put into a batch"):
        load_first_batch(Strange(), SampleOrder(3, 2, 0))


def test_too_little_data_is_refused():
    with pytest.raises(DataError, match="is empty"):
        dataset_length([], "train")
    with pytest.raises(DataError, match="5 samples are fewer than one batch of 8"):
        check_order(SampleOrder(5, 8, 0))
