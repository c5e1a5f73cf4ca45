"""Several optimizers: by parameter name, and in turns. The numbers are those of a loop written by hand."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's usual name
from devgw_runner import run
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.checkpoint.store import step_directory
from devgw_runner.errors import TaskError
from devgw_runner.optimizers import JointOptimizer, make_optimizer, make_schedule
from devgw_runner.sampler import Position, SampleOrder
from several import ByName, Gan, SeveralConfig
from torch import nn
from torch.optim import lr_scheduler

from conftest import SCRIPTS, RunPaths
from test_exact_resume import all_tensors


def batches(task, steps: int, seed: int = 0):
    """The runner's own order of samples, from its public rule."""
    data = task.data(None, "train")
    requests = SampleOrder(len(data), 8, seed).requests(Position())
    for _ in range(steps):
        indices = list(next(requests).indices)
        yield tuple(torch.stack([data[i][part] for i in indices]) for part in range(len(data[0])))


def test_optimizers_by_name_compute_what_a_loop_by_hand_computes(paths):
    """Muon and AdamW over the same weights, stepped one after the other."""
    assert run(ByName, ["--run-name", "tiny", "--steps", "7", "--eval-every", "100"]) == 0
    torch.manual_seed(0)
    task = ByName()
    model = task.model(None)
    members = task.optimizers(model, None)
    joint = JointOptimizer(members)
    cosine = task.schedule(joint, None, 7)["muon"]
    for batch in batches(task, 7):
        task.loss(model, batch).backward()
        for member in members.values():
            member.step()
            member.zero_grad()
        cosine.step()
    got = read_weights(step_directory(paths.checkpoints, 7))
    for name, value in model.state_dict().items():
        assert torch.equal(got[name], value), name


def test_a_gan_computes_what_a_loop_by_hand_computes(paths):
    """The critic's gradients in the generator's turn are thrown away, and the other way round."""
    assert run(Gan, ["--run-name", "tiny", "--steps", "9"]) == 0
    torch.manual_seed(0)
    task = Gan()
    model = task.model(None)
    members = task.optimizers(model, None)
    for batch in batches(task, 9):
        for turn in task.turns:
            task.turn_loss(turn, model, batch).backward()
            members[turn].step()
            for member in members.values():
                member.zero_grad()
    got = read_weights(step_directory(paths.checkpoints, 9))
    for name, value in model.state_dict().items():
        assert torch.equal(got[name], value), name
    last = paths.records()[-1]
    assert last["loss"] == pytest.approx(last["metric_loss_critic"] + last["metric_loss_generator"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["by-name", "gan"])
def test_several_optimizers_resume_bit_for_bit(finished, tmp_path, task):
    """All moments, all groups, both kinds of schedule."""
    line = (SCRIPTS / "several.py", "--run-name")
    assert finished(*line, "whole", "--steps", "20", TASK=task).returncode == 0
    for steps in ("8", "13", "20"):
        # The cosine's length is part of its state: the run is cut, not shortened.
        done = finished(*line, "cut", "--steps", "20", TASK=task, STOP_AT=steps)
        assert done.returncode == (0 if steps == "20" else 143), done.stderr
    one = all_tensors(tmp_path / "checkpoints" / "whole" / "step-00000020")
    other = all_tensors(tmp_path / "checkpoints" / "cut" / "step-00000020")
    assert one.keys() == other.keys()
    assert any(name.startswith("optim.") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    losses = [{r["step"]: r["loss"] for r in RunPaths(tmp_path, name).records()} for name in ("whole", "cut")]
    assert losses[0] == losses[1]


class Forgetful(ByName):
    def optimizers(self, model, cfg):
        return {"only": torch.optim.SGD(model[0].parameters(), lr=0.1)}


class Twice(ByName):
    def optimizers(self, model, cfg):
        return {name: torch.optim.SGD(model.parameters(), lr=0.1) for name in ("one", "two")}


class Wrong(ByName):
    def optimizers(self, model, cfg):
        return [torch.optim.SGD(model.parameters(), lr=0.1)]


class NoTurn(Gan):
    turns = ("critic", "genrator")


class WrongSchedule(ByName):
    def schedule(self, optimizer, cfg, total_steps):
        return "cosine"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Forgetful, "Forgetful.optimizers leaves 1.weight to no optimizer"),
        (Twice, "Twice.optimizers gives 0.weight to two optimizers: one and two"),
        (Wrong, "Wrong.optimizers returned a list"),
        (NoTurn, "NoTurn.turns names genrator, and NoTurn.optimizers has generator, critic"),
        (WrongSchedule, "WrongSchedule.schedule returned a str"),
    ],
)
def test_optimizers_that_cannot_be_are_told(task, message, capsys):
    assert run(task, ["--run-name", "tiny", "--steps", "3"]) == 10
    assert message in capsys.readouterr().err


def late(optimizer, inner: str, at: int = 3):
    """A schedule made of others as the second part of a SequentialLR."""
    parts = [lr_scheduler.ConstantLR(optimizer, 0.5, 3), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    made = (
        lr_scheduler.ChainedScheduler(parts)
        if inner == "ChainedScheduler"
        else lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    )
    return lr_scheduler.SequentialLR(optimizer, [lr_scheduler.LinearLR(optimizer), made], milestones=[at])


NESTED = {
    "alone": lambda schedule: schedule,
    "in-a-list": lambda schedule: [schedule],
    "in-a-chain": lambda schedule: lr_scheduler.ChainedScheduler([schedule]),
    "in-a-sequence": lambda schedule: lr_scheduler.SequentialLR(schedule.optimizer, [schedule], milestones=[]),
}


@pytest.mark.parametrize("inner", ["ChainedScheduler", "SequentialLR"])
@pytest.mark.parametrize("outer", NESTED)
def test_a_schedule_that_torch_cannot_begin_in_the_middle_is_refused_before_training(inner, outer, capsys):
    """Else torch raises NotImplementedError at the milestone, hours into the run."""

    class Late(ByName):
        def optimizers(self, model, cfg):
            return torch.optim.SGD(model.parameters(), lr=0.1)

        def schedule(self, optimizer, cfg, total_steps):
            return NESTED[outer](late(optimizer, inner))

    assert run(Late, ["--run-name", "tiny", "--steps", "5"]) == 10
    err = capsys.readouterr().err
    assert f"error: Late.schedule lets SequentialLR begin a {inner} at step 3, which torch cannot do" in err
    assert f"hint: put {inner} first in SequentialLR" in err
    assert "Traceback" not in err


def test_a_milestone_after_the_end_of_the_run_refuses_nothing():
    class Never(ByName):
        def schedule(self, optimizer, cfg, total_steps):
            return late(optimizer, "ChainedScheduler", at=total_steps + 1)

    optimizer = torch.optim.SGD(ByName().model(None).parameters(), lr=0.1)
    assert isinstance(make_schedule(Never(), optimizer, SeveralConfig(), 9), lr_scheduler.SequentialLR)


def test_a_frozen_parameter_needs_no_optimizer():
    model = ByName().model(None)
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)

    class Half(ByName):
        def optimizers(self, model, cfg):
            return torch.optim.SGD(model[3].parameters(), lr=0.1)

    assert isinstance(make_optimizer(Half(), model, SeveralConfig()), torch.optim.SGD)
    model[1].requires_grad_(True)
    with pytest.raises(TaskError, match=r"leaves 1\.weight"):
        make_optimizer(Half(), model, SeveralConfig())


def test_the_joint_state_is_numbered_through_and_splits_back():
    """What torch's own optimizers promise: load_state_dict(state_dict()) changes nothing."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))

    def make():
        groups = [{"params": [model[1].weight], "lr": 0.3}, {"params": [model[1].bias], "lr": 0.1}]
        return JointOptimizer(
            {"a": torch.optim.Adam(model[0].parameters()), "b": torch.optim.SGD(groups, momentum=0.9)}
        )

    joint = make()
    F.mse_loss(model(torch.randn(4, 3)), torch.ones(4, 1)).backward()
    joint.step()
    saved = joint.state_dict()
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2], [3]]
    assert sorted(saved["state"]) == [0, 1, 2, 3]
    fresh = make()
    fresh.load_state_dict(saved)
    assert torch.equal(fresh["b"].state[model[1].bias]["momentum_buffer"], saved["state"][3]["momentum_buffer"])
    assert [group["lr"] for group in fresh.param_groups] == [1e-3, 0.3, 0.1]
    assert len(fresh.state) == 4
    fresh.state[model[1].bias] = {"momentum_buffer": torch.zeros(1)}
    assert fresh["b"].state[model[1].bias]["momentum_buffer"].item() == 0


@pytest.mark.parametrize("among_several", [False, True])
def test_an_optimizer_that_computes_the_loss_itself_is_refused_by_name(capsys, among_several):
    """LBFGS calls its closure several times a step; the runner computes the loss once."""

    class Closures(ByName):
        def optimizer(self, params, cfg):
            return torch.optim.LBFGS(params)

        def optimizers(self, model, cfg):
            return {"": torch.optim.LBFGS(model.parameters())} if among_several else None

        def schedule(self, optimizer, cfg, total_steps):
            return None

    assert run(Closures, ["--run-name", "tiny", "--steps", "2"]) == 10
    err = capsys.readouterr().err
    assert "Closures uses LBFGS, whose step computes the loss by a closure" in err
    assert "hint: use an optimizer that steps on gradients" in err
    assert "Traceback" not in err
