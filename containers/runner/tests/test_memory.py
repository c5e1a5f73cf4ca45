"""A device that is too small: nothing takes more than the micro-batch, and --oom is asked everywhere."""

from typing import ClassVar

import pytest
import torch
from devgw_runner import LossOut, Task, TrainConfig, run
from devgw_runner.batch_tree import split_batch
from devgw_runner.measure import probe_sizes
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

QUICK = {"run_name": "tiny", "checkpoint_minutes": 0.0, "log_every": 1, "prometheus": "off", "csv": False}


class Memory:
    """A device that holds so many samples at once, and what it was given."""

    def __init__(self) -> None:
        self.holds = 2**30
        self.seen: list[tuple[str, int]] = []


class Hungry(Task):
    memory: ClassVar[Memory]

    def model(self, cfg):
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def loss(self, model, batch):
        size = len(batch[0])
        self.memory.seen.append(("train" if model.training else "val", size))
        if size > self.memory.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        return LossOut(loss, {"first": batch[0][:, 0].mean()})

    def data(self, cfg, split):
        inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
        return TensorDataset(inputs, inputs.sum(1, keepdim=True))


@pytest.fixture(autouse=True)
def memory():
    Hungry.memory = Memory()
    return Hungry.memory


@pytest.mark.parametrize("compile_mode", ["off", "auto"])
@pytest.mark.parametrize("peak", [None, 0.1])
def test_nothing_takes_more_than_the_micro_batch(memory, paths, compile_mode, peak):
    """Neither the first look, nor the measured step, nor the count of operations, nor the evaluation."""
    config = TrainConfig(**QUICK, batch_size=16, micro_batch=4, compile=compile_mode, peak_tflops=peak)
    memory.holds = 4
    assert run(Hungry, config) == 0
    assert {size for _, size in memory.seen} == {4}
    assert paths.events("oom") == []
    if peak:
        assert paths.records()[-1]["mfu"] > 0


@pytest.mark.slow
def test_compiling_takes_no_more_than_the_micro_batch(memory, paths):
    memory.holds = 4
    assert run(Hungry, TrainConfig(**QUICK, batch_size=16, micro_batch=4, steps=3, compile="default")) == 0
    assert max(size for _, size in memory.seen) == 4


@pytest.mark.parametrize("batch", [16, 64])
def test_a_first_look_that_does_not_fit_is_halved_and_remembered(memory, paths, batch):
    memory.holds = 5
    assert run(Hungry, TrainConfig(**QUICK, batch_size=batch, compile="off")) == 0
    trained = memory.seen[[size for _, size in memory.seen].index(4) + 1 :]
    assert max(size for _, size in trained) == 4
    assert paths.events("oom") == []


@pytest.mark.parametrize("where", ["first look", "training", "evaluation"])
def test_out_of_memory_stops_where_that_is_the_policy(memory, paths, capsys, where):
    class LateOrNever(Hungry):
        def loss(self, model, batch):
            begun = {"first look": True, "training": len(self.memory.seen) > 6, "evaluation": not model.training}
            self.memory.holds = 5 if begun[where] else 2**30
            return super().loss(model, batch)

    flags = ["--run-name", "tiny", "--batch-size", "16", "--oom", "stop", "--compile", "off"]
    assert run(LateOrNever, flags) == 16
    assert "--micro-batch 8" in capsys.readouterr().err


def test_an_evaluation_that_does_not_fit_is_taken_in_parts(memory, paths):
    """Its means are over the samples, however they were cut."""

    class LargeEvaluation(Hungry):
        def loss(self, model, batch):
            self.memory.holds = 2**30 if model.training else 5
            return super().loss(model, batch)

    assert run(LargeEvaluation, TrainConfig(**QUICK, batch_size=16, compile="off")) == 0
    memory.holds = 2**30
    assert run(Hungry, TrainConfig(**{**QUICK, "run_name": "whole"}, batch_size=16, compile="off")) == 0
    from conftest import RunPaths

    whole = RunPaths(paths.logs.parent.parent, "whole").records("val")[0]
    parts = paths.records("val")[0]
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["metric_first"] == pytest.approx(whole["metric_first"], rel=1e-5)
    assert [event["micro_batch"] for event in paths.events("oom")] == [8, 4]


def test_metrics_of_an_accumulated_batch_are_means_over_it(paths):
    from conftest import RunPaths

    for name, micro in (("tiny", 3), ("whole", 16)):
        config = TrainConfig(**{**QUICK, "run_name": name}, batch_size=16, micro_batch=micro, compile="off", steps=1)
        assert run(Hungry, config) == 0
    whole = RunPaths(paths.logs.parent.parent, "whole").records()[0]
    assert paths.records()[0]["metric_first"] == pytest.approx(whole["metric_first"], rel=1e-5)


@pytest.mark.parametrize(("samples", "micro", "sizes"), [(16, 6, [6, 5, 5]), (9, 4, [3, 3, 3]), (5, 2, [2, 2, 1])])
def test_parts_are_even_so_that_no_last_one_is_a_single_sample(samples, micro, sizes):
    assert [len(part) for part in split_batch(torch.zeros(samples, 1), micro, samples)] == sizes


@pytest.mark.parametrize(
    ("samples", "sizes"), [(1, (1,)), (2, (2,)), (3, (3,)), (4, (2, 4)), (7, (2, 7)), (64, (2, 8))]
)
def test_memory_is_probed_with_no_more_samples_than_there_are(samples, sizes):
    assert probe_sizes(samples) == sizes


class Own(Hungry):
    """The task's own loader, in the ways there are."""

    kind = "loader"

    def data(self, cfg, split):
        if split == "val":
            return DataLoader(super().data(cfg, split), batch_size=64)
        if self.kind == "loader":
            return DataLoader(super().data(cfg, split), batch_size=32, shuffle=True)
        if self.kind == "stream":
            return DataLoader(Stream(), batch_size=32)
        if self.kind == "growing":
            return Growing()
        return Batches()


class Stream(IterableDataset):
    """Samples without a length; a DataLoader over it has __len__, which raises."""

    def __iter__(self):
        for number in range(100):
            yield torch.full((6,), float(number)), torch.zeros(1)


class Batches(IterableDataset):
    def __iter__(self):
        for _ in range(3):
            yield torch.randn(32, 6), torch.zeros(32, 1)


class Growing(Dataset):
    """Batches of unequal size, the first one the smallest."""

    def __iter__(self):
        for size in (32, 40, 64):
            yield torch.randn(size, 6), torch.zeros(size, 1)


@pytest.mark.parametrize("compile_mode", ["off", "auto"])
@pytest.mark.parametrize(
    ("kind", "sizes"), [("loader", {32}), ("stream", {32, 4}), ("batches", {32}), ("growing", {32, 40, 64})]
)
def test_an_own_loader_keeps_its_batches(memory, paths, kind, sizes, compile_mode):
    """One forward pass a batch, with batch norm, with and without a length."""
    task = type("Own", (Own,), {"kind": kind})
    assert run(task, TrainConfig(**QUICK, steps=9, compile=compile_mode)) == 0
    train = [size for mode, size in memory.seen if mode == "train"]
    assert set(train) == sizes
    assert {size for mode, size in memory.seen if mode == "val"} == {64}
    assert len(paths.records()) == 9
    assert len(train) <= 9 + 1 + 4  # a first look and a timed step are made before


def test_a_stream_without_a_length_needs_steps(capsys):
    task = type("Own", (Own,), {"kind": "stream"})
    assert run(task, ["--run-name", "tiny"]) == 10
    assert "give --steps" in capsys.readouterr().err


def test_an_own_batch_is_accumulated_if_that_is_asked_for(memory):
    assert run(Own, TrainConfig(**QUICK, steps=2, micro_batch=8, compile="off")) == 0
    assert {size for mode, size in memory.seen if mode == "train"} == {8}


def test_a_larger_batch_of_an_own_loader_that_does_not_fit_is_halved(memory, paths):
    memory.holds = 40
    task = type("Own", (Own,), {"kind": "growing", "data": lambda s, c, split: Growing() if split == "train" else None})
    assert run(task, TrainConfig(**QUICK, steps=3, compile="off")) == 0
    assert [event["micro_batch"] for event in paths.events("oom")] == [32]
