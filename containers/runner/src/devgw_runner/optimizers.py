"""Several optimizers as one, and several schedules as one, so that loop, scaler and checkpoint see a single one.

Which parameters each takes is the task's choice (`Task.optimizers`); that none is forgotten is checked here.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from devgw_runner.errors import TaskError


class _JointState(MutableMapping[Tensor, Any]):
    """The members' states as one mapping; what is written goes to the member that has the parameter."""

    def __init__(self, members: Mapping[str, Optimizer]) -> None:
        self._members = members

    def __getitem__(self, parameter: Tensor) -> Any:
        for member in self._members.values():
            if parameter in member.state:
                return member.state[parameter]
        raise KeyError(parameter)

    def __setitem__(self, parameter: Tensor, value: Any) -> None:
        self._owner(parameter).state[parameter] = value

    def __delitem__(self, parameter: Tensor) -> None:
        del self._owner(parameter).state[parameter]

    def __iter__(self) -> Iterator[Tensor]:
        for member in self._members.values():
            yield from member.state

    def __len__(self) -> int:
        return sum(len(member.state) for member in self._members.values())

    def _owner(self, parameter: Tensor) -> Optimizer:
        for member in self._members.values():
            if any(parameter is own for group in member.param_groups for own in group["params"]):
                return member
        raise KeyError(parameter)


class JointOptimizer(Optimizer):
    """Named optimizers over disjoint parameters. Its groups are the members' groups, in order."""

    def __init__(self, members: Mapping[str, Optimizer]) -> None:
        self._members: dict[str, Optimizer] = {}
        super().__init__([nn.Parameter()], {})  # gives torch its hooks; the groups come from the members
        self._members = dict(members)

    def __getitem__(self, name: str) -> Optimizer:
        return self._members[name]

    @property
    def members(self) -> dict[str, Optimizer]:
        return dict(self._members)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for member in self._members.values() for group in member.param_groups]

    @param_groups.setter
    def param_groups(self, _value: Any) -> None:
        """Torch's own initialiser assigns it; the members keep theirs."""

    @property
    def state(self) -> Any:
        return _JointState(self._members)

    @state.setter
    def state(self, _value: Any) -> None:
        """As with the groups."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        """Step every member."""
        loss = closure() if closure is not None else None
        for member in self._members.values():
            member.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for member in self._members.values():
            member.zero_grad(set_to_none=set_to_none)

    def note_member_step(self) -> None:
        """Tell a schedule over this optimizer that a step was taken, although only a member took it."""
        self._opt_called = True

    def state_dict(self) -> dict[str, Any]:
        """Return one state: parameters are numbered through all members."""
        states: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        offset = 0
        for member in self._members.values():
            own = member.state_dict()
            states |= {index + offset: value for index, value in own["state"].items()}
            groups += [group | {"params": [i + offset for i in group["params"]]} for group in own["param_groups"]]
            offset += _count(member)
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Give each member its part."""
        groups, offset = list(state_dict["param_groups"]), 0
        for member in self._members.values():
            taken, groups = groups[: len(member.param_groups)], groups[len(member.param_groups) :]
            end = offset + _count(member)
            own = {i - offset: value for i, value in state_dict["state"].items() if offset <= i < end}
            moved = [group | {"params": [i - offset for i in group["params"]]} for group in taken]
            member.load_state_dict({"state": own, "param_groups": moved})
            offset = end


class JointSchedule:
    """Named schedules stepped together; each follows its own kind's rule (step or metric)."""

    def __init__(self, members: Mapping[str, LRScheduler]) -> None:
        self.members = dict(members)

    def step(self) -> None:
        for member in self.members.values():
            step_schedule(member)

    def step_metric(self, value: float) -> None:
        for member in self.members.values():
            step_schedule_metric(member, value)

    def state_dict(self) -> dict[str, Any]:
        return {name: member.state_dict() for name, member in self.members.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, member in self.members.items():
            member.load_state_dict(state[name])


Schedule = LRScheduler | JointSchedule


def step_schedule(schedule: Schedule | None) -> None:
    """Step a schedule after an optimizer step; one that follows a metric waits for the evaluation."""
    if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()


def step_schedule_metric(schedule: Schedule | None, value: float) -> None:
    """Step what follows a metric, with the monitored value of an evaluation."""
    if isinstance(schedule, JointSchedule):
        schedule.step_metric(value)
    elif isinstance(schedule, ReduceLROnPlateau):
        schedule.step(value)


def follows_metric(schedule: Schedule | None) -> bool:
    """Say whether any part of the schedule needs evaluations."""
    if isinstance(schedule, JointSchedule):
        return any(follows_metric(member) for member in schedule.members.values())
    return isinstance(schedule, ReduceLROnPlateau)


def make_optimizer(task: Any, model: nn.Module, config: Any) -> Optimizer:
    """Make the task's optimizer: `optimizers` by name, else `optimizer`, else a fused AdamW.

    Raises:
        TaskError: something else came back, or a parameter is in none or in two of them.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    own = task.optimizers(model, config)
    if own is None:
        own = task.optimizer(iter(trainable), config)
        if own is not None and not isinstance(own, Optimizer):
            raise _wrong(task, "optimizer", own, "a torch.optim.Optimizer")
        check_turns(task, {})
        _refuse_closures(task, [own] if own is not None else [])
        return own or AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    if isinstance(own, Optimizer):
        own = {"": own}
    if not isinstance(own, Mapping) or not own or not all(isinstance(member, Optimizer) for member in own.values()):
        raise _wrong(task, "optimizers", own, "a torch.optim.Optimizer, or a dict of them by name")
    _check_cover(task, model, own)
    _refuse_closures(task, list(own.values()))
    check_turns(task, own)
    return next(iter(own.values())) if len(own) == 1 else JointOptimizer(own)


def make_schedule(task: Any, optimizer: Optimizer, config: Any, total_steps: int) -> Schedule | None:
    """Make the task's schedule; several are stepped together.

    Raises:
        TaskError: something else than schedulers came back, or one that torch cannot step to the end.
    """
    own = task.schedule(optimizer, config, total_steps)
    if isinstance(own, list | tuple):
        own = {str(index): member for index, member in enumerate(own)}
    if isinstance(own, Mapping) and own and all(isinstance(member, LRScheduler) for member in own.values()):
        for member in own.values():
            _refuse_late_start(task, member, total_steps)
        return JointSchedule(own)
    if own is not None and not isinstance(own, LRScheduler):
        raise _wrong(task, "schedule", own, "a torch.optim.lr_scheduler, or several of them in a list or dict")
    if own is not None:
        _refuse_late_start(task, own, total_steps)
    return own


def check_turns(task: Any, members: Mapping[str, Optimizer]) -> None:
    """Refuse turns that no optimizer has.

    Raises:
        TaskError: it names the turn.
    """
    missing = [turn for turn in task.turns if turn not in members]
    if missing or (task.turns and len(members) < 2):
        kind = type(task).__name__
        raise TaskError(
            f"{kind}.turns names {missing[0] if missing else task.turns[0]}, and {kind}.optimizers has "
            f"{', '.join(members) or 'none'}",
            "let Task.optimizers return a dict with an optimizer for each turn",
        )


def _check_cover(task: Any, model: nn.Module, members: Mapping[str, Optimizer]) -> None:
    """Refuse a parameter that none would train, or that two would."""
    holders: dict[int, list[str]] = {}
    for name, member in members.items():
        for group in member.param_groups:
            for parameter in group["params"]:
                holders.setdefault(id(parameter), []).append(name)
    kind = type(task).__name__
    for name, parameter in model.named_parameters():
        held = holders.get(id(parameter), [])
        if parameter.requires_grad and not held:
            raise TaskError(
                f"{kind}.optimizers leaves {name} to no optimizer",
                "give it to one of them, or set its requires_grad to False in Task.model",
            )
        if len(held) > 1:
            raise TaskError(
                f"{kind}.optimizers gives {name} to two optimizers: {held[0]} and {held[1]}",
                "each parameter belongs to one optimizer",
            )


def _refuse_late_start(task: Any, schedule: LRScheduler, total_steps: int) -> None:
    """Refuse a schedule made of others that SequentialLR would begin in the middle of the run.

    At a milestone SequentialLR asks the next schedule for the learning rate of its step 0. One that is made of others
    has no such function, and torch raises NotImplementedError there, which may be hours away.

    Raises:
        TaskError: it names both schedules and the step.
    """
    parts = getattr(schedule, "_schedulers", ())
    if isinstance(schedule, SequentialLR):
        for milestone, part in zip(schedule._milestones, parts[1:], strict=True):  # noqa: SLF001 - torch has no public name
            if 0 < milestone <= total_steps and _has_no_rate_of_its_own(part):
                inner = type(part).__name__
                raise TaskError(
                    f"{type(task).__name__}.schedule lets SequentialLR begin a {inner} at step {milestone}, "
                    "which torch cannot do",
                    f"put {inner} first in SequentialLR, write its parts into SequentialLR, "
                    "or put the SequentialLR into a ChainedScheduler",
                )
    for part in parts:
        _refuse_late_start(task, part, total_steps)


def _has_no_rate_of_its_own(schedule: LRScheduler) -> bool:
    kind = type(schedule)
    inherits = (getattr(kind, name, None) is getattr(LRScheduler, name, None) for name in ("get_lr", "_update_lr"))
    return all(inherits)


def _refuse_closures(task: Any, optimizers: list[Optimizer]) -> None:
    """Refuse an optimizer that computes the loss itself, several times a step, as LBFGS does.

    Raises:
        TaskError: it names the optimizer.
    """
    for optimizer in optimizers:
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise TaskError(
                f"{type(task).__name__} uses {type(optimizer).__name__}, whose step computes the loss by a closure: "
                "the runner computes it once a step",
                "use an optimizer that steps on gradients, such as AdamW, SGD or Muon",
            )


def _count(optimizer: Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _wrong(task: Any, method: str, got: object, wanted: str) -> TaskError:
    return TaskError(f"{type(task).__name__}.{method} returned a {type(got).__name__}", f"return {wanted}")
