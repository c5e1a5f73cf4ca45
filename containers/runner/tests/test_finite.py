"""Nothing that holds an infinity or no number is sealed; the last good checkpoint stays; the policy is asked."""

import math
from typing import ClassVar

import pytest
import torch
from devgw_runner import Task, TrainConfig, run
from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.watch import FiniteWatch, gradient_size, not_finite
from torch import nn
from torch.utils.data import TensorDataset

from conftest import SCRIPTS

QUICK = {"run_name": "tiny", "batch_size": 8, "steps": 12, "log_every": 1, "compile": "off", "checkpoint_every": 1}


class Fragile(Task):
    """From training step `begins` on something is not finite, `lasts` steps long."""

    what: ClassVar[str]
    begins: ClassVar[int] = 6
    lasts: ClassVar[int] = 99

    def __init__(self):
        self.calls = -1  # the first look is no step

    def model(self, cfg):
        return WithMask()

    def loss(self, model, batch):
        inputs, targets = batch
        if model.training:
            self.calls += 1
        bad = model.training and self.begins <= self.calls < self.begins + self.lasts
        if bad and self.what == "statistics":
            inputs = inputs * math.inf  # the loss below does not see it, the running statistics do
            model.norm(inputs)
            inputs = batch[0]
        predicted = model(inputs)
        loss = nn.functional.mse_loss(predicted, targets)
        if bad and self.what == "loss":
            loss = loss * math.nan
        if bad and self.what == "gradient":
            loss = loss + torch.sqrt((predicted * 0).abs()).sum()  # value 0, gradient NaN
        return loss

    def data(self, cfg, split):
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        return TensorDataset(inputs, inputs.sum(1, keepdim=True)) if split == "train" else None


class WithMask(nn.Module):
    """A buffer of -inf, as an attention mask is: infinite by design."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 1)
        self.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))

    def forward(self, inputs):
        return self.linear(self.norm(inputs))


def fragile(what: str, **changes) -> type[Fragile]:
    return type("Fragile", (Fragile,), {"what": what, **changes})


def assert_only_finite(paths) -> None:
    assert paths.steps() != []
    for step in paths.steps():
        checkpoint = paths.checkpoints / f"step-{step:08d}"
        store.verify(checkpoint)
        weights = read_weights(checkpoint)
        assert [name for name in not_finite(weights) if name != "mask"] == []
        assert not torch.isfinite(weights["mask"]).all()


@pytest.mark.parametrize("what", ["loss", "gradient", "statistics"])
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_a_state_that_is_not_finite_is_never_sealed(paths, capsys, what, grad_clip):
    """The last good checkpoint is there, and the error says when it went wrong."""
    flags = ["--run-name", "tiny", "--batch-size", "8", "--steps", "12", "--checkpoint-every", "1", "--compile", "off"]
    assert run(fragile(what), [*flags, "--grad-clip", str(grad_clip)]) == 15
    error = capsys.readouterr().err
    wanted = (
        "norm.running_mean is not finite at step 6" if what == "statistics" else f"the {what} is not finite at step 6"
    )
    assert wanted in error.replace("model.", "")
    assert paths.steps() == [3, 4, 5]
    assert_only_finite(paths)
    assert run(fragile("nothing"), flags) == 0  # and it can be gone on from
    assert paths.steps()[-1] == 12


@pytest.mark.parametrize("what", ["loss", "gradient", "statistics"])
def test_ignoring_seals_nothing_that_is_not_finite_and_says_so(paths, what):
    assert run(fragile(what), TrainConfig(**QUICK, nan="ignore")) == 0
    assert paths.steps() == [3, 4, 5]
    assert_only_finite(paths)
    assert "no checkpoint" in paths.events("not-saved")[0]["text"]
    assert "checkpoint saved" not in paths.events("done")[0]["text"]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_skipped_step_leaves_weights_and_statistics_as_they_were(paths, what):
    """Also the running statistics of its forward pass."""
    task = fragile(what, lasts=1)
    assert run(task, TrainConfig(**{**QUICK, "steps": 6}, nan="skip")) == 0
    assert len(paths.events("skipped")) == 1
    before, after = (read_weights(paths.checkpoints / f"step-{step:08d}") for step in (5, 6))
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_a_bad_gradient_of_one_process_stops_all_with_the_code(finished, paths, tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(
        "import torch, os\nfrom blocks import Blocks\nfrom devgw_runner import run\n"
        "class Bad(Blocks):\n"
        "    calls = 0\n"
        "    def loss(self, model, batch):\n"
        "        self.calls += 1\n"
        "        loss = super().loss(model, batch)\n"
        "        bad = os.environ['RANK'] == '1' and self.calls == 4\n"
        "        return loss + torch.sqrt((loss * 0).abs()) if bad else loss\n"
        "run(Bad)\n"
    )
    flags = ["--steps", "9", "--run-name", "tiny", "--checkpoint-every", "1", "--log-every", "1"]
    done = finished("--nproc", "2", script, *flags, PYTHONPATH=str(SCRIPTS))
    assert done.returncode == 15, done.stderr
    assert "is not finite at step 3" in done.stderr
    assert paths.steps() == [1, 2]


def test_the_watch_remembers_the_first_step_and_what_was_wrong():
    watch = FiniteWatch(torch.device("cpu"), 4)
    for step, (loss, gradient) in enumerate([(1.0, 1.0), (1.0, math.inf), (math.nan, 1.0)], start=1):
        watch.note_gradient(torch.tensor(gradient))
        watch.observe(torch.tensor(loss), step)
    with pytest.raises(Exception, match=r"the gradient is not finite at step 2 \(epoch 0, batch 1\)"):
        watch.check(lambda mine: mine)


def test_the_note_of_the_gradient_keeps_its_address():
    """A captured graph writes to where it was when it was captured."""
    watch = FiniteWatch(torch.device("cpu"), 4)
    address = watch._gradient.data_ptr()
    watch.note_gradient(torch.tensor(2.0))
    assert watch._gradient.data_ptr() == address
    assert watch._gradient == 2.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e5m2])
def test_one_bad_element_is_found_whatever_the_dtype(value, dtype):
    good = torch.ones(3, 5)
    bad = good.clone()
    bad[1, 2] = value
    tensors = {
        "good": good.to(dtype),
        "bad": bad.to(dtype),
        "none": torch.ones(0),
        "whole": torch.ones(2, dtype=torch.long),
    }
    assert not_finite(tensors) == ["bad"]


@pytest.mark.parametrize(("value", "is_finite"), [(2.0, True), (math.nan, False)])
def test_sparse_gradients_are_watched_too(value, is_finite):
    table = nn.Embedding(5, 2, sparse=True)
    (table(torch.tensor([1, 3, 1])).sum() * value).backward()
    assert bool(torch.isfinite(gradient_size(table.parameters()))) == is_finite
    assert not_finite({"gradient": table.weight.grad}) == ([] if is_finite else ["gradient"])


def test_a_large_finite_gradient_is_no_infinity():
    """The square of 1e30 is; the gradient is not."""
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), 1e30)
    assert gradient_size([parameter]).item() == pytest.approx(1e30)
    assert gradient_size([]).item() == 0
