"""Hooks freeze and thaw while several processes train: DDP, FSDP2 and compiled code must follow, all alike.

DDP averages the gradients of the parameters that trained when it was made. One that is thawed later would take each
process's own gradient, and the weights of the processes would part without a word.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from devgw_runner.checkpoint.export import read_weights
from devgw_runner.config import TrainConfig
from devgw_runner.parallel.world import StopConsensus, World
from devgw_runner.remake import MOST_REMAKES, follow_switches
from devgw_runner.switch_watch import SwitchWatch
from torch import nn

from bits import differences
from conftest import SCRIPTS, RunPaths

SCRIPT = SCRIPTS / "switching.py"
STEPS = 8
FLAGS = ("--steps", str(STEPS))
THAWED = ("first.weight", "blocks.2.0.weight")


def line(parallel: str, name: str, *flags: str) -> tuple:
    if parallel == "single":
        return (SCRIPT, "--batch-size", "16", "--run-name", name, *FLAGS, *flags)
    return ("--nproc", "2", SCRIPT, "--parallel", parallel, "--run-name", name, *FLAGS, *flags)


def weights(tmp_path, name: str, step: int = STEPS) -> dict[str, torch.Tensor]:
    return read_weights(RunPaths(tmp_path, name).checkpoints / f"step-{step:08d}")


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["thaw", "freeze", "evaluation"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_follow_a_hook_as_one_does(finished, tmp_path, parallel, switch):
    """Both hold the same bits at the end, and those of one process with twice the batch but for rounding."""
    both = finished(*line(parallel, "two", "--checkpoint-every", "3"), SWITCH=switch, SAY=str(tmp_path))
    assert both.returncode == 0, both.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(second[name], value), name
    alone = finished(*line("single", "one", "--checkpoint-every", "3"), SWITCH=switch)
    assert alone.returncode == 0, alone.stderr
    expected = weights(tmp_path, "one")
    for name, value in expected.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    early = weights(tmp_path, "two", 3)
    moved = {name for name, value in weights(tmp_path, "two").items() if not torch.equal(value, early[name])}
    blocks = {f"blocks.{index}.0.{kind}" for index in range(3) for kind in ("weight", "bias")}
    head, front = ({f"{name}.weight", f"{name}.bias"} for name in ("head", "first"))
    never = {"thaw": set(), "freeze": {*front, *of(blocks, 1), *of(blocks, 2)}, "evaluation": {*front, *of(blocks, 2)}}
    assert moved == {*blocks, *head, *front} - never[switch]


def of(names: set[str], block: int) -> set[str]:
    return {name for name in names if name.startswith(f"blocks.{block}.")}


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_cut_after_a_switch_resumes_to_the_same_bits(finished, tmp_path, parallel):
    """Right after the third step, when nothing has followed yet, and later."""
    assert finished(*line(parallel, "whole")).returncode == 0
    for steps in ("3", "5", str(STEPS)):
        done = finished(*line(parallel, "cut", "--steps", steps))
        assert done.returncode == 0, done.stderr
    one, other = (RunPaths(tmp_path, name).checkpoints / f"step-{STEPS:08d}" for name in ("whole", "cut"))
    assert not differences(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("switch", ["thaw", "evaluation"])
def test_processes_that_switch_differently_are_refused(finished, parallel, switch):
    """Their wrappers would wait for other gradients: nothing is averaged, or all hang."""
    # No evaluation at that step: after one, its own comparison would tell it first.
    apart = ("--eval-every", "100") if switch == "thaw" else ()
    done = finished(*line(parallel, "one-alone", *apart), SWITCH=switch, ONE="1")
    assert done.returncode == 10, done.stderr
    assert "hooks did not freeze, thaw or rest the same in all processes" in done.stderr
    assert "hint: let them decide by what all processes share" in done.stderr


@pytest.mark.slow
def test_what_is_thawed_within_a_step_is_refused_by_name(finished, tmp_path):
    """DDP was made for this step already: the gradient would be one process's own."""
    done = finished(*line("ddp", "within"), SWITCH="within")
    assert done.returncode == 10, done.stderr
    assert "error: first.weight was thawed within a step: its gradient is that of one process" in done.stderr
    assert [record["step"] for record in RunPaths(tmp_path, "within").records()] == [1, 2, 3]


@pytest.mark.slow
def test_a_block_that_was_frozen_is_thawed_under_fsdp_in_bf16(finished, tmp_path):
    """At its first pass torch notes no dtype for it, and could not put its gradients beside its weights."""
    done = finished(*line("fsdp", "half", "--precision", "bf16", "--checkpoint-every", "3"))
    assert done.returncode == 0, done.stderr
    early, late = weights(tmp_path, "half", 3), weights(tmp_path, "half")
    for name in THAWED:
        assert not torch.equal(late[name], early[name]), name


@pytest.mark.slow
def test_what_is_thawed_with_another_dtype_is_refused_under_fsdp(finished):
    done = finished(*line("fsdp", "dtype"), SWITCH="dtype")
    assert done.returncode == 20, done.stderr
    assert "cannot train the thawed parameter gain: it has torch.float64, the others torch.float32" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["thaw", "rest"])
def test_a_compiled_step_follows_a_hook(finished, tmp_path, switch):
    """Torch takes a parameter for unchanged as long as it is the same object: what was thawed would never train."""
    for name, compiling in (("eager", "off"), ("compiled", "default")):
        done = finished(*line("single", name, "--compile", compiling), SWITCH=switch)
        assert done.returncode == 0, done.stderr
    expected, got = weights(tmp_path, "eager"), weights(tmp_path, "compiled")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    events = RunPaths(tmp_path, "compiled").events()
    (switched,) = [event["text"] for event in events if event["event"] == "switched"]
    assert switched.startswith("switched at step 3: ")
    assert len([event for event in events if event["event"] == "warm-up-done"]) == 2


@pytest.mark.slow
def test_a_hook_that_switches_at_each_step_ends_up_eager(finished, tmp_path):
    """To compile at each step would be all the run does."""
    steps = str(2 * MOST_REMAKES)
    done = finished(*line("single", "often", "--compile", "default", "--steps", steps), SWITCH="often")
    assert done.returncode == 0, done.stderr
    paths = RunPaths(tmp_path, "often")
    assert len(paths.events("switched")) == MOST_REMAKES
    (fall,) = paths.events("fall")
    assert "hooks froze or thawed parameters" in fall["text"]
    outcome = json.loads((paths.logs / "plan.json").read_text())["warm_up"]
    assert (outcome["rung"], [why["line"] for why in outcome["falls"]]) == ("eager", [fall["line"]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("switch", "held", "message"),
    [
        ("thaw", "no", "a hook thawed first.weight and 3 more, which no optimizer has"),
        ("everything", "", "every parameter is frozen: nothing is left to train"),
        ("group", "", "a hook changed the optimizer's parameters: 11 now, 10 at the start"),
    ],
)
def test_switches_that_nothing_can_come_of_are_refused(finished, switch, held, message):
    done = finished(*line("single", "refused"), SWITCH=switch, HELD=held)
    assert done.returncode == 10, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_captured_graph_is_left_and_what_was_frozen_has_no_gradient():
    """A replay would go on with the backward pass of before; a zero gradient would still decay the weights."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    choice = SimpleNamespace(value="auto")
    said = []
    state = SimpleNamespace(
        switches=SwitchWatch(model, optimizer),
        requests=StopConsensus(World()),
        recorder=SimpleNamespace(event=lambda name, text, **_: said.append(text)),
        position=SimpleNamespace(step=4),
        plan=SimpleNamespace(graphs=choice, parallel=SimpleNamespace(value="single")),
        config=TrainConfig(),
        step=model,
        loss_step=model,
        graph=object(),
        launch_meter=None,
        remakes=0,
        is_compiled=False,
    )
    assert follow_switches(state, None) == 0
    assert state.graph is not None  # nothing was switched
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    assert follow_switches(state, None) == 0
    assert state.graph is None
    assert state.launch_meter is not None
    optimizer.step()
    assert torch.equal(model[0].weight, before)
    assert said == ["switched at step 4: 0.weight and 1 more frozen"]
    assert follow_switches(state, None) == 0
    assert len(said) == 1
