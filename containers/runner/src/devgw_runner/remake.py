"""Make anew, at a step boundary, what was made for other switches than hooks have set since.

DDP averages the gradients of the parameters that trained when it was made, and of no others. A compiled step and a
captured graph hold the backward pass of that time, and do not notice. What is switched is `switch_watch`'s.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from devgw_runner.batch_tree import split_batch
from devgw_runner.errors import StopRequested
from devgw_runner.graphs import LaunchMeter
from devgw_runner.ladder import rehearse, undo_compile
from devgw_runner.parallel.sharding import check_thawed
from devgw_runner.parallel.unused import AttentiveDDP
from devgw_runner.parallel.wrapping import let_go, note_dtypes, wrap_ddp
from devgw_runner.placement import give_back_gathered
from devgw_runner.state import RunState
from devgw_runner.switch_watch import Switched, disagreement
from devgw_runner.task import batch_samples
from devgw_runner.warmup import compile_targets, stop_compiling, warm_up

ORDER_MATTERS = 3
"""From so many processes on, a sum of floats depends on the order of its parts."""

MOST_REMAKES = 8
"""So often is a step compiled again, and a switch said: a hook may switch at each step."""


def begin_switches(run: RunState) -> None:
    """Take the switches that `setup` and a checkpoint have set for those that the run begins with.

    Raises:
        TaskError: nothing can come of them.
    """
    give_back_gathered(run.state.model)  # what hooks of the start switch must be the shards, not copies of them
    run.switches.take_changes()
    frozen = set(run.state.frozen_at_start)
    run.switches.require_trainable(
        name for name, parameter in run.state.model.named_parameters() if parameter.requires_grad and name in frozen
    )


def agree_on_switches(run: RunState) -> None:
    """Compare the switches of all processes after a hook that the exchange of a step does not see.

    Raises:
        TaskError: they differ.
    """
    if not run.world.have_same(run.switches.digest):
        raise disagreement()


def follow_switches(run: RunState, batch: Any) -> int:
    """If hooks switched something, make anew what depends on it; return the signal that stopped that, or 0.

    `batch` is one of the run's, to compile with.

    Raises:
        TaskError: nothing can come of the switches, or the processes have not set the same.
    """
    if not run.switches.have_changed:
        return 0
    switched = run.switches.take_changes()
    run.switches.require_trainable(switched.thawed)
    if not run.requests.settle():
        raise disagreement(switched)
    run.remakes += 1
    _say(run, switched)
    run.switches.clear_gradients(switched.frozen)
    if run.plan.parallel.value == "fsdp":
        check_thawed(run.state.model, switched.thawed)
        note_dtypes(run.state.model)
    if isinstance(run.step, AttentiveDDP):
        let_go(run.step)
        run.step = run.loss_step
    _forget_graph(run)
    stop_signal = _compile_again(run, batch) if run.is_compiled else 0
    if run.plan.parallel.value == "ddp":
        run.step = wrap_data_parallel(run, batch)
    return stop_signal


def wrap_data_parallel(run: RunState, batch: Any) -> AttentiveDDP:
    """Exchange gradients between processes; losses in turns leave each other's parameters unused.

    `batch` is one of the run's, to rehearse with.
    Turns may freeze and thaw within a step, so that all that an optimizer has is taken for trainable.
    """
    unused = run.config.find_unused_parameters or bool(run.task.turns)
    # A resumed process has its own buffers back; as at the start, the first forward pass makes them one.
    is_begun = run.position.step > 0
    groups = run.state.optimizer.param_groups if run.task.turns else []
    with _thawed(parameter for group in groups for parameter in group["params"]):
        wrapped = wrap_ddp(run.loss_step, run.device, find_unused=unused, is_begun=is_begun)
    if run.config.deterministic and run.world.size >= ORDER_MATTERS and not unused:
        _arrange_buckets(run, wrapped, batch)
    return wrapped


def _arrange_buckets(run: RunState, wrapped: AttentiveDDP, batch: Any) -> None:
    """Let DDP see a backward pass: it then arranges its buckets anew, in the order in which gradients come.

    Where a gradient lies decides in which order the processes' parts of it are added. A resumed run would take its
    first step with the first arrangement, where one that went on had the second long ago.
    """
    samples = batch_samples(batch)
    rehearse(run.loss_step, split_batch(batch, run.micro_batch, samples)[0], run.autocast, through=wrapped)


def _say(run: RunState, switched: Switched) -> None:
    if run.remakes > MOST_REMAKES:
        return
    last = "; it is not said any more" if run.remakes == MOST_REMAKES else ""
    run.recorder.event("switched", f"switched at step {run.position.step}: {switched.words()}{last}")


def _forget_graph(run: RunState) -> None:
    run.graph = None
    if run.plan.graphs.value != "off":
        run.launch_meter = LaunchMeter()


def _compile_again(run: RunState, batch: Any) -> int:
    """Climb the ladder again: compiled code takes a parameter for unchanged as long as it is the same object."""
    undo_compile(compile_targets(run))
    torch.compiler.set_stance("default")
    run.shapes.is_open = True
    if run.remakes > MOST_REMAKES:
        line = f"hooks froze or thawed parameters {run.remakes} times, each needs a compilation"
        stop_compiling(run, "Switches", line)
        return 0
    try:
        with nullcontext() if run.world.is_distributed else run.signals.interruptible():
            warm_up(run, batch)
    except StopRequested as stop:
        return stop.signal_number
    return 0


@contextmanager
def _thawed(parameters: Iterator[nn.Parameter]) -> Iterator[None]:
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
