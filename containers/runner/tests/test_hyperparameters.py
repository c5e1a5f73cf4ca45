"""Hyperparameters that changed since the checkpoint are applied and said, or refused by name."""

import math
from typing import ClassVar

import pytest
import torch
from devgw_runner import Task, TrainConfig, run
from devgw_runner.checkpoint.export import read_weights
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler
from torch.utils.data import TensorDataset

STEPS = 20


class Config(TrainConfig):
    batch_size: int = 8
    compile: str = "off"
    deterministic: bool = True
    log_every: int = 1
    run_name: str = "tiny"
    smoothing: float = 0.0


class Small(Task):
    config = Config
    kind: ClassVar[str] = "none"
    make: ClassVar = staticmethod(lambda params, cfg: SGD(params, lr=cfg.learning_rate, momentum=0.9, weight_decay=0.0))

    def model(self, cfg):
        return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=self.smoothing)

    smoothing = 0.0

    def data(self, cfg, split):
        if split != "train":
            return None
        generator = torch.Generator().manual_seed(0)
        return TensorDataset(torch.randn(64, 4, generator=generator), torch.randint(2, (64,), generator=generator))

    def optimizer(self, params, cfg):
        return self.make(params, cfg)

    def schedule(self, optimizer, cfg, total_steps):
        return SCHEDULES[self.kind](optimizer, total_steps)


SCHEDULES = {
    "none": lambda o, total: None,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "onecycle": lambda o, total: lr_scheduler.OneCycleLR(o, o.param_groups[0]["lr"], total),
    "linear": lambda o, total: lr_scheduler.LinearLR(o, 1.0, 0.1, total),
    "polynomial": lr_scheduler.PolynomialLR,
    "lambda": lambda o, total: lr_scheduler.LambdaLR(o, lambda s: 1 - s / (total + 1)),
    "multiplicative": lambda o, total: lr_scheduler.MultiplicativeLR(o, lambda s: 1 - 1 / total),
    "cyclic": lambda o, total: lr_scheduler.CyclicLR(o, 0.0001, o.param_groups[0]["lr"], total),
    "restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "sequential": lambda o, total: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.CosineAnnealingLR(o, total - 2)], [2]
    ),
    "chained": lambda o, total: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(o, 0.99), lr_scheduler.LinearLR(o, 1.0, 0.1, total)]
    ),
    # These do not look at the run's length.
    "step": lambda o, total: lr_scheduler.StepLR(o, 7, 0.5),
    "exponential": lambda o, total: lr_scheduler.ExponentialLR(o, 0.95),
    "multistep": lambda o, total: lr_scheduler.MultiStepLR(o, [5, 25]),
    "fixed lambda": lambda o, total: lr_scheduler.LambdaLR(o, lambda s: 1 / (1 + s)),
}
OF_ANY_LENGTH = {"none", "step", "exponential", "multistep", "fixed lambda"}


def train(steps: int, *flags: str, kind: str = "none", make=None) -> int:
    extra = {"make": staticmethod(make)} if make else {}
    task = type("Small", (Small,), {"kind": kind, **extra})
    return run(task, ["--steps", str(steps), *flags])


def rates(paths) -> dict[int, float]:
    return {record["step"]: record["learning_rate"] for record in paths.records()}


def said(paths) -> str:
    return "\n".join(event["text"] for event in paths.events("changed"))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_longer_run_follows_the_longer_schedule_and_says_so(kind, paths, tmp_path, capsys):
    """OneCycle used to crash at the old end, cosine to climb again; each goes on as one of the new length does."""
    assert train(STEPS, kind=kind) == 0
    assert train(2 * STEPS, kind=kind) == 0, capsys.readouterr().err
    resumed = rates(paths)
    assert "the run has 40 steps, was 20" in said(paths)
    assert train(2 * STEPS, "--run-name", "whole", kind=kind) == 0
    whole = rates(type(paths)(tmp_path, "whole"))
    assert [resumed[step] for step in range(STEPS + 1, 2 * STEPS + 1)] == [
        whole[step] for step in range(STEPS + 1, 2 * STEPS + 1)
    ]
    if kind in OF_ANY_LENGTH:
        ends = [read_weights(tmp_path / "checkpoints" / name / "step-00000040") for name in ("tiny", "whole")]
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
        assert "goes on at" not in said(paths)
    else:
        assert "the learning rate goes on at" in said(paths)


@pytest.mark.parametrize("kind", ["none", "cosine", "onecycle", "linear", "lambda", "sequential", "chained", "step"])
def test_a_changed_learning_rate_is_applied_and_said(kind, paths, tmp_path):
    flags = ("--checkpoint-every", "10")
    assert train(STEPS, "--learning-rate", "0.01", *flags, kind=kind) == 0
    origin = paths.checkpoints / "step-00000010"
    assert train(STEPS, "--learning-rate", "0.1", "--resume", str(origin), kind=kind) == 0
    assert "learning_rate is 0.1, was 0.01" in said(paths)
    assert "lr of parameter group 0 is" in said(paths)
    assert train(STEPS, "--learning-rate", "0.1", "--run-name", "whole", kind=kind) == 0
    whole, resumed = rates(type(paths)(tmp_path, "whole")), rates(paths)
    for step in range(11, STEPS + 1):
        assert resumed[step] == pytest.approx(whole[step], rel=1e-12), step


def test_other_values_of_a_group_are_applied_and_said(paths):
    assert train(4, make=lambda p, cfg: AdamW(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)) == 0
    seen = []

    def changed(params, cfg):
        seen.append(AdamW(params, lr=0.01, betas=(0.8, 0.99), weight_decay=0.3))
        return seen[-1]

    assert train(6, make=changed) == 0
    assert seen[-1].param_groups[0]["betas"] == (0.8, 0.99)
    assert seen[-1].param_groups[0]["weight_decay"] == 0.3
    assert "weight_decay of parameter group 0 is 0.3, was 0.1" in said(paths)
    assert "betas of parameter group 0" in said(paths)
    assert seen[-1].state[seen[-1].param_groups[0]["params"][0]]["step"] == 6


def test_a_setting_that_nothing_reads_is_said_to_have_no_effect(paths):
    def own(params, cfg):
        return SGD(params, lr=0.05)

    assert train(4, make=own) == 0
    assert train(6, "--learning-rate", "0.5", make=own) == 0
    assert "learning_rate has no effect: the task's own optimizer does not read it" in said(paths)


def test_other_settings_that_changed_are_said(paths):
    assert train(4) == 0
    assert train(6, "--seed", "3", "--grad-clip", "1", "--smoothing", "0.1", "--workers", "1") == 0
    for text in ("seed is 3, was 0", "grad_clip is 1.0, was 0.0", "smoothing is 0.1, was 0.0"):
        assert text in said(paths)
    assert "workers" not in said(paths)


def test_an_unchanged_run_says_nothing(paths):
    assert train(STEPS, "--checkpoint-every", "10", kind="cosine") == 0
    assert train(STEPS, "--resume", str(paths.checkpoints / "step-00000010"), kind="cosine") == 0
    assert said(paths) == ""


def test_a_schedule_of_another_kind_begins_as_if_it_had_been_there(paths):
    assert train(8, "--checkpoint-every", "4", kind="step") == 0
    assert train(8, "--resume", str(paths.checkpoints / "step-00000004"), kind="exponential") == 0
    assert "the schedule is ExponentialLR, was StepLR" in said(paths)
    assert rates(paths)[5] == pytest.approx(0.001 * 0.95**5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, cfg: Adam(p, lr=0.01), "the checkpoint is of the optimizer SGD, the task makes a Adam"),
        (
            lambda p, cfg: SGD([{"params": [x]} for x in p], lr=0.01, momentum=0.9),
            "the checkpoint has 1 parameter groups, the optimizer has 4",
        ),
        (
            lambda p, cfg: SGD(list(p)[::-1], lr=0.01, momentum=0.9),
            "parameter group 0 has 0.weight in the checkpoint, 1.bias here",
        ),
        (lambda p, cfg: SGD(list(p)[:-1], lr=0.01, momentum=0.9), "parameter group 0 has 1.bias in the checkpoint"),
    ],
)
def test_an_optimizer_that_the_state_does_not_fit_is_refused_by_name(make, message, paths, capsys):
    """Moments of other parameters used to be taken without a word where their number was the same."""
    assert train(4) == 0
    capsys.readouterr()
    assert train(6, make=make) == 12
    assert message in capsys.readouterr().err
    assert paths.steps() == [4]


def test_a_cosine_that_climbs_again_is_foretold(paths):
    SCHEDULES["short cosine"] = lambda o, total: lr_scheduler.CosineAnnealingLR(o, 10)
    try:
        assert train(15, kind="short cosine") == 0
    finally:
        del SCHEDULES["short cosine"]
    assert "T_max=10, the run 15 steps" in paths.events("schedule")[0]["text"]


def test_changed_numbers_are_finite(paths):
    assert train(STEPS, kind="onecycle") == 0
    assert train(STEPS + 1, kind="onecycle") == 0
    assert all(math.isfinite(rate) for rate in rates(paths).values())


class Watched(Small):
    """Follows the evaluation; each one lowers the rate, since no loss is good enough."""

    factor: ClassVar[float] = 0.5

    def data(self, cfg, split):
        return super().data(cfg, "train")

    def schedule(self, optimizer, cfg, total_steps):
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=self.factor, patience=0, threshold=0.9)


def test_a_schedule_that_follows_a_metric_keeps_what_it_saw_and_takes_new_values(paths):
    """It cannot be brought forward: its state is loaded, what was changed in its making is put over it."""
    flags = ["--eval-every", "2", "--learning-rate", "0.08", "--checkpoint-every", "6"]
    assert run(Watched, [*flags, "--steps", "6"]) == 0
    there = paths.records()[-1]["learning_rate"]
    assert there < 0.08
    other = type("Watched", (Watched,), {"factor": 0.25})
    assert run(other, [*flags, "--steps", "8"]) == 0
    assert "factor of ReduceLROnPlateau is 0.25, was 0.5" in said(paths)
    lowered = rates(paths)[7]
    assert run(other, [*flags, "--steps", "10"]) == 0
    assert rates(paths)[9] == pytest.approx(lowered * 0.25)
    assert run(other, [*flags, "--steps", "12", "--learning-rate", "0.8"]) == 0
    assert rates(paths)[11] == pytest.approx(10 * lowered * 0.25**2)
