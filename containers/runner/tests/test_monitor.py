"""Best checkpoints by a metric, early stopping, and schedules that follow a metric; all of them across resumes."""

import json
import math

import pytest
import tiny
import torch
from devgw_runner import LossOut, run
from devgw_runner.cli import main
from devgw_runner.errors import TaskError
from devgw_runner.monitor import Monitor, choose_mode

# What the evaluations after steps 8, 16, … say; the data of `Scripted` is one epoch of eight steps.
SCRIPT = [0.9, 0.5, 0.7, 0.4, 0.6, 0.6, 0.6, 0.3]


class Scripted(tiny.Tiny):
    """Evaluations follow a script; its "accuracy" is the loss turned over."""

    script = SCRIPT

    def on_step_end(self, ctx):
        self.epoch = ctx.epoch

    def load_state_dict(self, state):
        self.epoch = state["epoch"]

    def state_dict(self):
        return {"epoch": getattr(self, "epoch", 0)}

    def loss(self, model, batch):
        out = super().loss(model, batch)
        if model.training or not getattr(self, "epoch", 0):
            return out
        value = torch.tensor(self.script[self.epoch - 1])
        return LossOut(value, {"accuracy": 1 - value})


class Plateau(Scripted):
    def schedule(self, optimizer, cfg, total_steps):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)


def train(task, *flags: str) -> int:
    return run(task, ["--run-name", "tiny", "--epochs", "8", "--log-every", "8", *flags])


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--checkpoint-best", "1"], [64]),
        (["--checkpoint-best", "2", "--checkpoint-keep", "1"], [32, 64]),
        (["--checkpoint-best", "3", "--checkpoint-keep", "1"], [16, 32, 64]),
        # the same order, by a metric that is better when larger
        (["--checkpoint-best", "2", "--checkpoint-keep", "1", "--monitor", "accuracy"], [32, 64]),
        # the other way round on purpose
        (["--checkpoint-best", "1", "--checkpoint-keep", "1", "--monitor-mode", "max"], [8, 64]),
        (["--checkpoint-best", "0", "--checkpoint-keep", "1"], [64]),
    ],
)
def test_the_best_checkpoints_stay_beside_the_newest(paths, flags, kept):
    assert train(Scripted, *flags) == 0
    steps = paths.steps()
    keep = int(flags[flags.index("--checkpoint-keep") + 1]) if "--checkpoint-keep" in flags else 3
    assert [step for step in steps if step in kept] == kept
    assert len(steps) <= keep + len(kept)
    if keep == 1:
        assert steps == kept


def test_the_best_are_remembered_across_resumes(paths):
    """Cut between the best and the end: the second process must not drop what the first found."""
    flags = ["--checkpoint-best", "1", "--checkpoint-keep", "1"]
    scripted = type("Scripted2", (Scripted,), {"script": [0.9, 0.1, 0.7, 0.4, 0.6, 0.6, 0.6, 0.3]})
    for epochs in ("3", "5", "8"):
        assert train(scripted, *flags, "--epochs", epochs) == 0
    assert paths.steps() == [16, 64]


def test_export_and_checkpoints_know_the_best(paths, tmp_path, capsys):
    assert train(Scripted, "--checkpoint-best", "1", "--checkpoint-keep", "2", "--epochs", "6") == 0
    target = str(tmp_path / "best.safetensors")
    assert main(["export", "--checkpoint", str(paths.checkpoints), "--best", "--output", target]) == 0
    assert "of step-00000032 to" in capsys.readouterr().out
    assert main(["checkpoints", str(paths.checkpoints), "-o", "json"]) == 0
    rows = {row["step"]: row["monitored"] for row in json.loads(capsys.readouterr().out)["checkpoints"]}
    assert rows[32] == {"name": "loss", "value": pytest.approx(0.4)}
    assert main(["checkpoints", str(paths.checkpoints)]) == 0
    assert "intact  loss 0.4" in capsys.readouterr().out


def test_export_of_the_best_needs_an_evaluated_checkpoint(paths, capsys):
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "2", "--eval-every", "100"]) == 0
    for path in paths.checkpoints.glob("step-*/MANIFEST.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"monitored": {}}))
    assert main(["export", "--checkpoint", str(paths.checkpoints), "--best", "--output", "x"]) == 12
    assert "was evaluated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "last"),
    [
        (["--early-stop", "2"], 48),  # 0.4 at 32, then 0.6 and 0.6
        (["--early-stop", "3"], 56),
        (["--early-stop", "4"], 64),  # 0.3 comes in time
        (["--early-stop", "2", "--early-stop-delta", "0.45"], 24),  # neither 0.5 nor 0.7 is enough below 0.9
        (["--early-stop", "2", "--monitor", "accuracy"], 48),
        (["--early-stop", "1", "--monitor-mode", "max"], 16),
        ([], 64),
    ],
)
def test_early_stopping_ends_after_evaluations_without_progress(paths, flags, last):
    assert train(Scripted, *flags) == 0
    assert paths.steps()[-1] == last
    text = paths.events("done")[0]["text"]
    assert ("stopped early" in text) == (last < 64)
    # It is remembered: started again, the run is over.
    assert train(Scripted, *flags) == 0
    assert "nothing to do" in paths.events("done")[-1]["text"]


@pytest.mark.parametrize("cut", ["2", "4", "5"])
def test_patience_is_counted_across_resumes(paths, cut):
    """Two of the evaluations without progress fall on either side of the cut."""
    for epochs in (cut, "8"):
        assert train(Scripted, "--early-stop", "2", "--epochs", epochs) == 0
    assert paths.steps()[-1] == 48
    # More patience lets the run go on.
    assert train(Scripted, "--early-stop", "4") == 0
    assert paths.steps()[-1] == 64


@pytest.mark.parametrize("cuts", [["8"], ["3", "5", "8"]])
def test_a_plateau_schedule_follows_the_evaluations(paths, cuts):
    """Worse than the best after 24, 40, 48 and 56 steps: four halvings, wherever the run was cut."""
    for epochs in cuts:
        assert train(Plateau, "--epochs", epochs) == 0
    rates = [record["learning_rate"] for record in paths.records()]
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.00625, 0.003125])


class WithoutVal(tiny.Tiny):
    def data(self, cfg, split):
        return super().data(cfg, split) if split == "train" else None


class PlateauWithoutVal(WithoutVal):
    schedule = Plateau.schedule


@pytest.mark.parametrize(
    ("task", "flags", "code", "message"),
    [
        (tiny.Tiny, ["--monitor", "acuracy"], 10, "an evaluation has no metric acuracy"),
        (WithoutVal, ["--early-stop", "2"], 2, "--early-stop needs an evaluation"),
        (WithoutVal, ["--checkpoint-best", "2"], 2, "--checkpoint-best needs an evaluation"),
        (PlateauWithoutVal, [], 2, "ReduceLROnPlateau needs an evaluation"),
        (tiny.Tiny, ["--monitor-mode", "best"], 2, "--monitor-mode"),
        (tiny.Tiny, ["--early-stop", "-1"], 2, "--early-stop"),
    ],
)
def test_what_cannot_be_monitored_is_told_before_the_first_step(paths, capsys, task, flags, code, message):
    assert train(task, *flags) == code
    assert message in capsys.readouterr().err
    assert paths.records() == []


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("loss", "min"),
        ("class_error", "min"),
        ("perplexity", "min"),
        ("test-wer", "min"),
        ("accuracy", "max"),
        ("f1", "max"),
        ("lossless", "max"),
    ],
)
def test_the_direction_goes_by_the_name(name, mode):
    assert choose_mode(name, "auto") == mode
    assert choose_mode(name, "max") == "max"


def test_not_a_number_is_never_progress_and_never_best():
    monitor = Monitor(keep=2, patience=2)
    for step, value in enumerate([math.nan, 0.5, math.nan, math.nan], start=1):
        monitor.observe({"loss": value}, step)
    assert monitor.best == [(0.5, 2)]
    assert monitor.is_exhausted
    assert not monitor.is_among_best(3)


def test_the_monitor_comes_back_whole():
    monitor = Monitor(name="accuracy", mode="max", keep=2, patience=3)
    for step, value in enumerate([0.1, 0.5, 0.4], start=1):
        monitor.observe({"accuracy": value}, step)
    again = Monitor(name="accuracy", mode="max", keep=2, patience=3)
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert again == monitor
    other = Monitor(name="loss")
    other.load_state_dict(monitor.state_dict())  # another metric begins anew
    assert other == Monitor(name="loss")
    with pytest.raises(TaskError, match="has no metric loss"):
        other.observe({"accuracy": 0.3}, 4)


def test_a_first_evaluation_that_is_no_number_is_no_reference():
    """Nothing is smaller than NaN: a run that began with one would be stopped although it goes on improving."""
    monitor = Monitor(patience=2)
    for step, value in enumerate([math.nan, 0.9, 0.8, 0.7], start=1):
        monitor.observe({"loss": value}, step)
    assert (monitor.stale, monitor.is_exhausted, monitor.best[0]) == (0, False, (0.7, 4))
