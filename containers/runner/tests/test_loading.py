"""Batches come out the same, whoever loads them; wrong ones are refused."""

import itertools

import pytest
import torch
from devgw_runner.errors import DataError
from devgw_runner.loading import (
    check_order,
    dataset_length,
    load_first_batch,
    move_batch,
    open_dataset,
    repeat_loader,
    split_batch,
)
from devgw_runner.sampler import Position, SampleOrder
from devgw_runner.task import batch_samples, check_batch
from tiny import Points
from torch.utils.data import DataLoader, TensorDataset

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


def test_a_plain_loader_is_replayed_up_to_its_position():
    loader = DataLoader(TensorDataset(torch.arange(12.0).unsqueeze(1)), batch_size=4)
    after_two = repeat_loader(loader, Position(step=5, epoch=1, samples=2), batches_per_epoch=3)
    assert next(after_two)[0].flatten().tolist() == [8, 9, 10, 11]
    assert next(after_two)[0].flatten().tolist() == [0, 1, 2, 3]


class Counting:
    """A loader that remembers its own position."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self):
        while self.at < 6:
            self.at += 1
            yield torch.full((2, 1), float(self.at - 1))
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def test_a_loader_with_a_state_continues_by_itself():
    loader = Counting()
    loader.load_state_dict({"at": 4})
    stream = repeat_loader(loader, Position(step=4, samples=4), batches_per_epoch=6)
    assert [int(next(stream)[0]) for _ in range(4)] == [4, 5, 0, 1]


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
        ((torch.zeros(2), None), "holds a NoneType"),
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
