"""What only a GPU can prove: graphs, scaler, offload, fp8, NVML, automatic batch size.

Run by `make gpu-proof`, or `pytest containers/runner/tests/gpu`. Not yet run on any GPU.
"""

import pytest
import tiny
import torch
from devgw_runner import Task, TrainConfig, run
from devgw_runner.graphs import WholeStepGraph, make_capturable
from devgw_runner.metrics.gpu import driver_version, read_gpus
from devgw_runner.precision import convert_to_fp8
from torch import nn

pytestmark = pytest.mark.gpu


class Wave(Task):
    """A deterministic regression whose batches all have one shape."""

    def model(self, cfg):
        return nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 1))

    def loss(self, model, batch):
        return nn.functional.mse_loss(model(batch[0]).squeeze(1), batch[1].float())

    def data(self, cfg, split):
        return tiny.Points(512, 1, 0.0) if split == "train" else None


def losses(paths) -> list[float]:
    return [record["loss"] for record in paths.records()]


def test_a_captured_step_computes_the_losses_of_the_uncaptured_one(paths, tmp_path):
    """200 steps, side by side; the schedule's learning rate is read at each replay."""
    config = {"steps": 200, "batch_size": 16, "log_every": 1, "precision": "fp32", "compile": "off"}
    run(Wave, TrainConfig(run_name="tiny", graphs="on", **config))
    assert any(event.get("rung") == "graph" for event in paths.events("graphs"))
    graphed = losses(paths)
    from conftest import RunPaths

    run(Wave, TrainConfig(run_name="plain", graphs="off", **config))
    assert graphed == pytest.approx(losses(RunPaths(tmp_path, "plain")), rel=1e-4)


def test_accumulated_gradients_equal_those_of_the_whole_batch(paths, tmp_path):
    """The silent fault of pytorch/pytorch#96693 would show here."""
    from conftest import RunPaths

    config = {"steps": 20, "batch_size": 32, "log_every": 1, "precision": "fp32", "compile": "default"}
    run(Wave, TrainConfig(run_name="tiny", micro_batch=8, **config))
    run(Wave, TrainConfig(run_name="whole", **config))
    assert losses(paths) == pytest.approx(losses(RunPaths(tmp_path, "whole")), rel=1e-4)


def test_the_learning_rate_is_not_frozen_into_the_graph():
    model = nn.Linear(4, 1).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(batch):
        loss = model(batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach(), {}

    batch = torch.randn(8, 4, device="cuda")
    for _ in range(3):
        step(batch)
    make_capturable(optimizer)
    graph = WholeStepGraph(step, batch)
    optimizer.param_groups[0]["lr"].fill_(0.0)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    before = model.weight.detach().clone()
    graph.replay(batch)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32", "fp32"])
def test_every_precision_learns(paths, precision):
    run(tiny.Tiny, tiny.TinyConfig(run_name="tiny", steps=60, log_every=10, precision=precision))
    assert losses(paths)[-1] < losses(paths)[0]


def test_the_automatic_batch_fits(paths):
    run(Wave, TrainConfig(run_name="tiny", steps=2))
    assert paths.steps() == [2]


def test_fp8_converts_only_large_layers():
    model = nn.Sequential(nn.Linear(4096, 4096), nn.Linear(4096, 10)).cuda().bfloat16()
    assert convert_to_fp8(model) == 1
    assert type(model[0]).__name__ == "Float8Linear"
    assert type(model[1]) is nn.Linear


def test_offloaded_parameters_train(finished, paths):
    script = tiny.__file__.replace("tiny.py", "blocks.py")
    flags = ["--parallel", "fsdp", "--cpu-offload", "--steps", "4", "--run-name", "tiny", "--grad-clip", "1"]
    done = finished("--nproc", str(max(2, torch.cuda.device_count())), script, *flags)
    assert done.returncode == 0, done.stderr


def test_nvml_answers():
    assert driver_version()
    assert read_gpus()[0].memory_total_bytes > 2**30
