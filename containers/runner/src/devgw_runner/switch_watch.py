"""What hooks switch while a run goes on: which parameters train, and which modules rest in evaluation mode.

Making anew what was made for other switches is left to `remake`; keeping them in a checkpoint to
`checkpoint.switches`.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from devgw_runner.errors import TaskError


@dataclass(frozen=True)
class Switched:
    """The names of what was switched since the last look."""

    frozen: list[str]
    thawed: list[str]
    rested: list[str]
    woken: list[str]

    @property
    def changes_parameters(self) -> bool:
        return bool(self.frozen or self.thawed)

    def words(self) -> str:
        """Say what was switched."""
        kinds = {
            "frozen": self.frozen,
            "thawed": self.thawed,
            "put into evaluation mode": self.rested,
            "put into training mode": self.woken,
        }
        return ", ".join(f"{first_of(names)} {kind}" for kind, names in kinds.items() if names) or "nothing"


@dataclass(frozen=True)
class _Look:
    """One byte for each parameter and each module, and how many parameters the optimizer has."""

    training: bytes
    modes: bytes
    held: int


class SwitchWatch:
    """Looks at each step boundary whether a hook has switched something; a look costs microseconds."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._parameters = dict(model.named_parameters())
        self._modules = dict(model.named_modules())
        self._optimizer = optimizer
        self._seen = self._look()
        self._held_at_start = self._seen.held

    @property
    def digest(self) -> int:
        """A number by which processes compare their switches."""
        look = self._look()
        return zlib.crc32(look.training + look.modes)

    @property
    def have_changed(self) -> bool:
        return self._look() != self._seen

    def take_changes(self) -> Switched:
        """Return what was switched since the last call."""
        before, now = self._seen, self._look()
        self._seen = now
        return Switched(
            frozen=_turned(self._parameters, before.training, now.training, to=0),
            thawed=_turned(self._parameters, before.training, now.training, to=1),
            rested=_turned(self._modules, before.modes, now.modes, to=0),
            woken=_turned(self._modules, before.modes, now.modes, to=1),
        )

    def clear_gradients(self, frozen: Iterable[str]) -> None:
        """Take the gradients of what was frozen: momentum and weight decay would move it even where they are zero."""
        for name in frozen:
            self._parameters[name].grad = None

    def require_trainable(self, thawed: Iterable[str]) -> None:
        """Refuse switches that nothing can come of.

        Raises:
            TaskError: nothing trains any more, no optimizer has what was thawed, or a hook gave one more parameters.
        """
        if not any(parameter.requires_grad for parameter in self._parameters.values()):
            raise TaskError(
                "every parameter is frozen: nothing is left to train",
                "let a hook leave one, or end the run with ctx.stop(reason)",
            )
        held = self._look().held
        if held != self._held_at_start:
            raise TaskError(
                f"a hook changed the optimizer's parameters: {held} now, {self._held_at_start} at the start; "
                "a resume could not make it so again",
                "let Task.optimizers take all of them, frozen ones too, and let the hook thaw them",
            )
        own = {id(parameter) for group in self._optimizer.param_groups for parameter in group["params"]}
        forgotten = [name for name in thawed if id(self._parameters[name]) not in own]
        if forgotten:
            raise TaskError(
                f"a hook thawed {first_of(forgotten)}, which no optimizer has: it would never be trained",
                "let Task.optimizers take all parameters that are ever to be trained, frozen ones too",
            )

    def _look(self) -> _Look:
        return _Look(
            training=bytes([parameter.requires_grad for parameter in self._parameters.values()]),
            modes=bytes([module.training for module in self._modules.values()]),
            held=sum(len(group["params"]) for group in self._optimizer.param_groups),
        )


def disagreement(switched: Switched | None = None) -> TaskError:
    """Say that the processes have not switched the same; `switched` is what this one did."""
    own = f": {switched.words()} in this one" if switched else ""
    return TaskError(
        f"hooks did not freeze, thaw or rest the same in all processes{own}",
        "let them decide by what all processes share: ctx.step, ctx.epoch, the means of an evaluation",
    )


def first_of(names: list[str]) -> str:
    """Name the first, and count the others."""
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0] or 'the model'}{others}"


def _turned(named: Iterable[str], before: bytes, now: bytes, *, to: int) -> list[str]:
    return [name for name, was, is_ in zip(named, before, now, strict=True) if was != is_ and is_ == to]
