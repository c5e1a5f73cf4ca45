"""Several processes never train on the same batches of the task's own loader without a word."""

import json
from types import SimpleNamespace

import pytest
from blocks import Blocks
from devgw_runner.errors import DataError
from devgw_runner.parallel.loader_sharding import require_sharded
from devgw_runner.parallel.world import World
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler

from conftest import SCRIPTS

TWO = World(rank=1, size=2)
DATA = list(range(10))


def sharded(replicas: int) -> DistributedSampler:
    return DistributedSampler(DATA, replicas, 0)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(DATA, sampler=sharded(2)),
        DataLoader(DATA, batch_sampler=BatchSampler(sharded(2), 2, drop_last=False)),
        SimpleNamespace(shards_by_rank=True),
        SimpleNamespace(dataset=SimpleNamespace(_distributed=SimpleNamespace(world_size=2, rank=1))),
    ],
)
def test_a_loader_that_is_dealt_out_is_taken(loader):
    require_sharded(loader, TWO)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(DATA), "gives each of 2 processes the same batches"),
        (DataLoader(DATA, sampler=RandomSampler(DATA)), "the same batches"),
        ([1, 2, 3], "the same batches"),
        (DataLoader(DATA, sampler=sharded(4)), "dealt out to 4 processes, these are 2"),
        (SimpleNamespace(shards_by_rank=False), "the same batches"),
    ],
)
def test_a_loader_that_gives_everybody_the_same_is_refused(loader, message):
    with pytest.raises(DataError, match=message):
        require_sharded(loader, TWO)
    require_sharded(loader, World())  # alone, all of it is right


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sampler", "itself"])
def test_two_processes_train_on_disjoint_halves(finished, tmp_path, how):
    flags = ("--nproc", "2", SCRIPTS / "own_loader.py", "--epochs", "1", "--run-name", how)
    done = finished(*flags, HOW=how)
    assert done.returncode == 0, done.stderr
    one, other = ({*json.loads((tmp_path / f"seen-{rank}.json").read_text())} for rank in (0, 1))
    everything = {sample[0][0].item() for sample in Blocks().data(None, "train")}
    assert one | other == everything
    assert not one & other


@pytest.mark.slow
def test_two_processes_with_the_same_batches_are_refused_on_the_command_line(finished):
    done = finished("--nproc", "2", SCRIPTS / "own_loader.py", "--epochs", "1")
    assert done.returncode == 11
    assert "the task's own loader gives each of 2 processes the same batches" in done.stderr
