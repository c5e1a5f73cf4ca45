"""Tensor parallelism beside FSDP2: four processes, of which two share each layer and two divide the data."""

from pathlib import Path

import pytest
from devgw_runner.config import TrainConfig
from devgw_runner.errors import ShardingError, TaskError, UsageError
from devgw_runner.parallel.tensor import share_layers
from devgw_runner.parallel.world import World, join_world
from devgw_runner.plan.throughput import choose_parallel
from sharing import Transformer
from torch.distributed.tensor.parallel import ColwiseParallel
from torch.testing import assert_close

from bits import differences
from conftest import SCRIPTS, RunPaths
from test_parallel import weights
from test_plan import facts

SCRIPT = SCRIPTS / "sharing.py"
SHARED = ("--nproc", "4", SCRIPT, "--tensor-parallel", "2")
STEPS = 6


def line(start: tuple, name: str, steps: int, *flags: str) -> tuple:
    return (*start, "--run-name", name, "--steps", str(steps), "--checkpoint-every", "2", *flags)


def threads_at_the_end(said: Path) -> list[str]:
    """Of gloo's threads; one that lives on can end the process by SIGABRT while the interpreter goes."""
    return [path.read_text() for path in sorted(said.glob("threads-*"))]


@pytest.mark.slow
def test_four_processes_compute_what_one_computes_and_resume_to_the_same_bits(finished, tmp_path):
    """Gradients are clipped, so that norms are those of all parts; the cut run is another process of the same mesh."""
    clip = ("--grad-clip", "0.5")
    alone = finished(*line((SCRIPT,), "one", STEPS, "--batch-size", "8", *clip))
    assert alone.returncode == 0, alone.stderr
    whole = finished(*line(SHARED, "whole", STEPS, *clip), THREADS=str(tmp_path))
    assert whole.returncode == 0, whole.stderr
    assert threads_at_the_end(tmp_path) == [""] * 4
    one, shared = (weights(RunPaths(tmp_path, name), STEPS) for name in ("one", "whole"))
    assert one.keys() == shared.keys()
    for name, value in one.items():
        assert_close(shared[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    for steps in (3, STEPS):
        done = finished(*line(SHARED, "cut", steps, *clip))
        assert done.returncode == 0, done.stderr
    assert "resumed from step-00000003" in done.stdout
    last = [RunPaths(tmp_path, name).checkpoints / f"step-{STEPS:08d}" for name in ("whole", "cut")]
    assert not differences(*last)
    # What four processes saved, one reads, and says that it lies otherwise now.
    further = finished(*line((SCRIPT,), "cut", STEPS + 1, "--batch-size", "8", *clip))
    assert further.returncode == 0, further.stderr
    assert "parallel is single, was fsdp x tensor 2: not bit-exact" in further.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("beside", "scale stands beside other layers, and Transformer is not in the tensor plan"),
        ("uneven", "blocks.0.up.weight has 65 rows or columns, which 2 processes cannot share evenly"),
    ],
)
def test_what_cannot_be_shared_is_told_by_name(finished, tmp_path, wrong, message):
    environment = {"WRONG": wrong, "THREADS": str(tmp_path)}
    done = finished("--nproc", "2", SCRIPT, "--tensor-parallel", "2", "--steps", "1", **environment)
    assert done.returncode == 20, done.stderr
    assert f"error: {message}" in done.stderr
    assert "or --tensor-parallel 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(threads_at_the_end(tmp_path)) == {""}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "--tensor-parallel needs a plan, and Mine.tensor_plan has none"),
        (None, "--tensor-parallel needs a plan, and Mine.tensor_plan has none"),
        ({"layers.*.up": ColwiseParallel()}, "Mine.tensor_plan names layers.*.up, and the model has no such layer"),
        ({"blocks.*.up": "colwise"}, "Mine.tensor_plan has a str for blocks.*.up"),
    ],
)
def test_a_plan_that_is_none_is_refused_before_anything_is_shared(plan, message):
    with pytest.raises(TaskError) as refused:
        share_layers(Transformer(), plan, None, "Mine")
    assert refused.value.message == message


def test_tied_weights_are_refused_by_name():
    model = Transformer()
    model.head.weight = model.words.weight
    with pytest.raises(ShardingError, match=r"words\.weight and head\.weight are one tensor"):
        share_layers(model, {"blocks.*.up": ColwiseParallel()}, None, "Mine")


def test_processes_that_share_layers_see_the_same_samples():
    worlds = [World(rank=rank, size=6, tensor=2) for rank in range(6)]
    assert [world.data_rank for world in worlds] == [0, 0, 1, 1, 2, 2]
    assert {world.data_size for world in worlds} == {3}


@pytest.mark.parametrize(("size", "hint"), [("1", "--nproc 2"), ("3", "--nproc 2"), ("5", "--nproc 4")])
def test_processes_that_cannot_be_grouped_are_told_how_many_can(monkeypatch, size, hint):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UsageError, match="--tensor-parallel 2 does not divide") as refused:
        join_world("cpu", 2)
    assert hint in refused.value.hint


def test_the_plan_says_who_shares_and_refuses_ddp():
    chosen = choose_parallel(TrainConfig(tensor_parallel=2), facts(world=4))
    assert (chosen.value, chosen.reason) == ("fsdp", "2 processes share each layer, 2 divide the data")
    with pytest.raises(UsageError, match="needs --parallel fsdp, not ddp"):
        choose_parallel(TrainConfig(tensor_parallel=2, parallel="ddp"), facts(world=4))
