"""Parameters that take no part in a step, under DDP.

DDP waits for a gradient of every parameter. Where one has none, the processes that have one wait for it, and those
that have none say so at the next step, by the parameter's number; nothing says what has to be done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from devgw_runner.errors import TaskError

STEP_PREFIX = "model."  # DDP wraps the loss step, which holds the model under this name
OF_UNUSED = "Expected to have finished reduction in the prior iteration"


class AttentiveDDP(DistributedDataParallel):
    """DDP that knows by name which parameters it waits for: those that were trainable when it was made.

    `strangers` are the others: a gradient of theirs would not be averaged.
    """

    def __init__(self, step: nn.Module, **options: Any) -> None:
        super().__init__(step, **options)
        named = [(name.removeprefix(STEP_PREFIX), parameter) for name, parameter in step.named_parameters()]
        self.awaited = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        self.strangers = [(name, parameter) for name, parameter in named if not parameter.requires_grad]


def require_all_gradients(step: nn.Module, optimizer: Optimizer) -> None:
    """Refuse a step that left a parameter out, right after its backward pass: nothing wrong is stepped or saved.

    So is one that has a gradient of this process alone, because it was thawed within the step.

    Raises:
        TaskError: it names the first such parameter.
    """
    if not isinstance(step, AttentiveDDP):
        return
    alone = [(name, parameter) for name, parameter in step.strangers if parameter.grad is not None]
    if alone:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in alone:
            if id(parameter) in held:
                raise TaskError(
                    f"{name} was thawed within a step: its gradient is that of one process",
                    "thaw it between steps, in on_step_end, on_epoch_end or on_evaluation_end",
                )
    if step.find_unused_parameters:
        return
    if any(parameter.grad is None for _, parameter in step.awaited):
        raise refusal([name for name, parameter in step.awaited if parameter.grad is None])


@contextmanager
def naming_unused(step: nn.Module) -> Iterator[None]:
    """Translate what DDP says at the step after one whose last part left a parameter out.

    Raises:
        TaskError: as `require_all_gradients`.
    """
    try:
        yield
    except RuntimeError as exc:
        if OF_UNUSED not in str(exc) or not isinstance(step, AttentiveDDP):
            raise
        words = str(exc).partition("did not receive grad for rank")[2].partition(":")[2].splitlines()
        numbers = [int(word) for word in (words[0].split() if words else []) if word.isdecimal()]
        raise refusal([step.awaited[number][0] for number in numbers if number < len(step.awaited)]) from exc


def refusal(names: list[str]) -> TaskError:
    """Say which parameter it is, how many others there are, and which setting allows it."""
    others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return TaskError(
        f"{names[0] if names else 'a parameter'}{others} got no gradient in this step, and DDP waits for one of every "
        "parameter that is trainable",
        "--find-unused-parameters allows it; else give it a part in every loss, or freeze it",
    )
