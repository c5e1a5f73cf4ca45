"""Batches as detection, graphs and Hugging Face make them: counted, moved, cut and trained on."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from devgw_runner import Task, TrainConfig, run
from devgw_runner.batch_tree import count_samples, is_uniform, split_batch
from devgw_runner.errors import DataError
from devgw_runner.loading import move_batch
from devgw_runner.own_loader import digest_of
from devgw_runner.task import check_batch
from torch import nn
from torch.utils.data import DataLoader

Pair = namedtuple("Pair", "x y")  # noqa: PYI024 - what users' own code has


@dataclass
class Sample:
    x: torch.Tensor
    name: str


class Encoding(UserDict):
    """As transformers.BatchEncoding: a UserDict with a `.to` of its own."""

    def to(self, device):
        return Encoding({key: value.to(device) for key, value in self.data.items()})


class Graphs:
    """As a PyTorch Geometric Batch: an object with tensors of unequal length, `num_graphs` and `.to`."""

    def __init__(self, sizes):
        self.x = torch.randn(sum(sizes), 4, generator=torch.Generator().manual_seed(sum(sizes)))
        self.batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.num_graphs = len(sizes)
        self.moved_to = None

    def to(self, device):
        self.moved_to = device
        return self


def detection(count: int):
    """Images of unequal size beside a list of targets with unequal numbers of boxes."""
    images = [torch.zeros(3, 8 + i, 8) for i in range(count)]
    return images, [{"boxes": torch.zeros(i, 4), "name": f"image {i}"} for i in range(count)]


def same_size_detection(count: int):
    images, targets = detection(count)
    return [image[:, :8] for image in images], [{"boxes": torch.zeros(3, 4), "name": t["name"]} for t in targets]


@pytest.mark.parametrize(
    ("batch", "samples", "uniform"),
    [
        # as default_collate makes them
        (torch.zeros(5, 2), 5, True),
        ((torch.zeros(5, 2), torch.zeros(5)), 5, True),
        ([torch.zeros(5, 2), torch.zeros(5)], 5, True),
        ({"x": torch.zeros(5, 2), "y": torch.zeros(5)}, 5, True),
        ([[torch.zeros(5, 2), torch.zeros(5)], torch.zeros(5)], 5, True),
        (Pair(torch.zeros(5), torch.zeros(5)), 5, True),
        (Sample(torch.zeros(5), "all of them"), 5, False),
        # Hugging Face
        (UserDict(input_ids=torch.zeros(4, 7), labels=torch.zeros(4)), 4, True),
        ({"input_ids": torch.zeros(4, 7), "text": ["a", "b", "c", "d"]}, 4, False),
        (
            {"pixels": torch.zeros(2, 3), "labels": [{"boxes": torch.zeros(1, 4)}, {"boxes": torch.zeros(6, 4)}]},
            2,
            False,
        ),
        ({"x": torch.zeros(3, 1), "missing": None, "temperature": torch.tensor(2.0)}, 3, False),
        # detection
        (detection(4), 4, False),
        (detection(3), 3, False),
        (same_size_detection(2), 2, False),
        (([torch.zeros(3, 4), torch.zeros(2, 4)], [torch.zeros(5), torch.zeros(1)]), 2, False),
        # a list of samples, not collated
        ([(torch.zeros(3, 8, 8), 1), (torch.zeros(3, 9, 8), 0)], 2, False),
        ([{"x": torch.zeros(3)}, {"x": torch.zeros(3)}, {"x": torch.zeros(3)}], 3, False),
        # graphs
        (Graphs([3, 5, 2]), 3, False),
        ({"graphs": Graphs([3, 5]), "y": torch.zeros(2)}, 2, False),
    ],
)
def test_samples_are_counted_as_the_batchs_makers_count_them(batch, samples, uniform):
    assert count_samples(batch) == samples
    assert is_uniform(batch) == uniform


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.zeros(3), torch.zeros(4)), r"disagree on its size: \[3, 4\]"),
        ((torch.zeros(6, 4), torch.zeros(2, 9)), r"disagree on its size: \[2, 6\]"),
        ((torch.zeros(0, 3), torch.zeros(0)), "holds no samples"),
        (object(), "holds no samples that can be counted"),
        (torch.tensor(1.0), "holds no samples"),
    ],
)
def test_a_batch_that_cannot_be_counted_names_the_way_out(batch, message):
    with pytest.raises(DataError, match=message) as caught:
        count_samples(batch)
    assert "Task.samples" in caught.value.hint


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        ({"ids": torch.arange(5), "text": list("abcde")}, [2, 2, 1]),
        (detection(5), [2, 2, 1]),
        (UserDict(x=torch.arange(5)), [2, 2, 1]),
        ([(torch.zeros(3, i + 1), i) for i in range(5)], [2, 2, 1]),
        (Sample(torch.arange(5), "all"), [2, 2, 1]),
    ],
)
def test_ragged_batches_are_cut_sample_by_sample_and_keep_their_kind(batch, sizes):
    parts = split_batch(batch, 2, count_samples(batch))
    assert [count_samples(part) for part in parts] == sizes
    assert {type(part) for part in parts} == {type(batch)}
    if isinstance(batch, dict):
        assert [part["text"] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    if isinstance(batch, tuple) and isinstance(batch[1][0], dict):
        assert [target["name"] for part in parts for target in part[1]] == [f"image {i}" for i in range(5)]


def test_a_batch_of_graphs_cannot_be_cut_and_says_what_to_do():
    with pytest.raises(DataError, match="Graphs in a batch cannot be cut") as caught:
        split_batch(Graphs([2, 2, 2]), 2, 3)
    assert "--micro-batch" in caught.value.hint
    whole = Graphs([2, 2])
    assert split_batch(whole, 2, 2) == [whole]


def test_everything_that_can_move_is_moved_and_keeps_its_kind():
    cpu = torch.device("cpu")
    encoding = UserDict(ids=torch.arange(3), names=["a", "b", "c"])
    moved = move_batch(
        {"deep": [Pair(torch.zeros(2), "word")], "hf": encoding, "g": Graphs([1])}, cpu, torch.channels_last
    )
    assert isinstance(moved["hf"], UserDict)
    assert moved["hf"] is not encoding
    assert moved["hf"]["names"] == ["a", "b", "c"]
    assert isinstance(moved["deep"][0], Pair)
    assert moved["g"].moved_to == cpu
    images, _ = move_batch((torch.zeros(2, 3, 4, 4), None), cpu, torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_without_any_tensor_is_refused():
    with pytest.raises(DataError, match="a batch holds a str and no tensor"):
        check_batch(["one", "two"])


def test_the_digest_of_graphs_is_of_what_they_hold():
    """Not of where they lie in memory: a resumed process must find the same."""
    assert digest_of(Graphs([3, 2])) == digest_of(Graphs([3, 2]))
    assert digest_of(Graphs([3, 2])) != digest_of(Graphs([4, 2]))


class BatchConfig(TrainConfig):
    batch_size: int = 4
    log_every: int = 1
    csv: bool = False
    prometheus: str = "off"


class Detect(Task):
    """Boxes in images of unequal size; a data set with a `collate` that keeps lists."""

    config = BatchConfig

    class Data(list):
        def collate(self, samples):
            images, targets = zip(*samples, strict=True)
            return list(images), list(targets)

    def model(self, cfg):
        return nn.Conv2d(3, 4, 1)

    def loss(self, model, batch):
        images, targets = batch
        losses = []
        for image, target in zip(images, targets, strict=True):
            seen = model(image.unsqueeze(0)).mean(dim=(0, 2, 3))
            losses.append(((target["boxes"] - seen) ** 2).mean())
        return torch.stack(losses).mean()

    def data(self, cfg, split):
        generator = torch.Generator().manual_seed(1)
        samples = []
        for i in range(24):
            image = torch.rand(3, 4 + i % 5, 6, generator=generator)
            samples.append((image, {"boxes": torch.rand(1 + i % 3, 4, generator=generator), "name": f"image {i}"}))
        return self.Data(samples) if split == "train" else None


class GraphTask(Task):
    """A task's own loader of graph batches, which says itself how many samples it counts."""

    config = BatchConfig

    def model(self, cfg):
        return nn.Linear(4, 1)

    def loss(self, model, batch):
        summed = torch.zeros(batch.num_graphs, 1).index_add(0, batch.batch, model(batch.x))
        return (summed**2).mean()

    def samples(self, batch):
        return batch.num_graphs * 10

    def data(self, cfg, split):
        return [Graphs([3, 5, 2]), Graphs([1, 1]), Graphs([7, 2, 2, 4])] * 4 if split == "train" else None


class Listed(GraphTask):
    """The same through torch's own DataLoader."""

    def data(self, cfg, split):
        data = super().data(cfg, split)
        return None if data is None else DataLoader(data, batch_size=None)


@pytest.mark.parametrize("task", [Detect, Listed])
def test_detection_and_graph_batches_train_and_resume(paths, task):
    for steps in ("3", "6"):
        assert run(task, ["--run-name", "tiny", "--steps", steps]) == 0
    assert run(task, ["--run-name", "whole", "--steps", "6"]) == 0
    whole = type(paths)(paths.logs.parents[1], "whole")
    assert [record["loss"] for record in paths.records()] == [record["loss"] for record in whole.records()]
    assert "resumed from step-00000003" in [event["text"] for event in paths.events("resumed")]


def test_accumulating_ragged_batches_computes_the_whole_batch(paths):
    losses = []
    for name, micro in (("tiny", "4"), ("parts", "1")):
        assert run(Detect, ["--run-name", name, "--steps", "6", "--micro-batch", micro]) == 0
        losses.append([r["loss"] for r in type(paths)(paths.logs.parents[1], name).records()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_tasks_own_count_is_what_counts(paths):
    assert run(Listed, ["--run-name", "tiny", "--steps", "2"]) == 0
    plan = (paths.logs / "plan.json").read_text()
    assert '"value": 30' in plan  # three graphs of ten samples each


class Miscounted(Listed):
    def samples(self, batch):
        return None


def test_a_wrong_count_is_refused(capsys):
    assert run(Miscounted, ["--run-name", "tiny", "--steps", "2"]) == 11
    assert "Miscounted.samples returned None" in capsys.readouterr().err
