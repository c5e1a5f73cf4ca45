"""What a resume does when hyperparameters are no longer what they were: it applies them and says so, or refuses.

Optimizer and schedule are made anew at each start. What they were right after they were made stands in the
checkpoint, so that a change is told from what training itself did to them.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from devgw_runner.checkpoint.encoding import decode, encode
from devgw_runner.errors import CheckpointError

# Settings that change no number, and those whose change is told elsewhere.
UNTOLD = frozenset(
    {
        *(
            "run_name",
            "data_dir",
            "checkpoint_dir",
            "log_dir",
            "cache_dir",
            "resume",
            "explain",
            "profile",
            "peak_tflops",
        ),
        *("checkpoint_every", "checkpoint_minutes", "checkpoint_keep", "checkpoint_best", "checkpoint_async"),
        *("log_every", "progress_seconds", "csv", "tensorboard", "prometheus", "eval_every", "workers", "oom"),
        *("epochs", "steps", "batch_size", "micro_batch", "device", "memory_format", "parallel", "tensor_parallel"),
        *("compile_timeout_seconds", "group_timeout_seconds"),
        *("logger", "logger_project", "logger_uri", "logger_secrets"),
    }
)
OPTIMIZER_SETTINGS = ("learning_rate", "weight_decay")

Changes = list[tuple[int, str, str]]  # the group, the value's name, what to say


def describe(model: nn.Module, optimizer: Optimizer, schedule: Any, settings: Mapping[str, Any], steps: int) -> Any:
    """Return what was just made, in types that a checkpoint holds; `steps` is the length of the run."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {
            "names": [names.get(id(parameter), "") for parameter in group["params"]],
            "values": encode({key: value for key, value in group.items() if key != "params"}, "optimizer"),
        }
        for group in optimizer.param_groups
    ]
    return {
        "optimizer": type(optimizer).__name__,
        "groups": copy.deepcopy(groups),
        "schedules": {name: type(part).__name__ for name, part in _members(schedule).items()},
        "schedule": copy.deepcopy(_states(schedule)),
        "settings": {name: value for name, value in settings.items() if name not in UNTOLD},
        "steps": steps,
    }


def check_same_optimizer(there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse a state for other parameters or of another optimizer.

    Raises:
        CheckpointError: it names the optimizer, or the first parameter that another group has.
    """
    hint = "restore Task.optimizer as it was, or --resume off starts anew"
    if there["optimizer"] != here["optimizer"]:
        text = f"the checkpoint is of the optimizer {there['optimizer']}, the task makes a {here['optimizer']}"
        raise CheckpointError(text, hint)
    if len(there["groups"]) != len(here["groups"]):
        text = f"the checkpoint has {len(there['groups'])} parameter groups, the optimizer has {len(here['groups'])}"
        raise CheckpointError(text, hint)
    for index, (old, new) in enumerate(zip(there["groups"], here["groups"], strict=True)):
        if old["names"] != new["names"]:
            pairs = zip([*old["names"], "none"], [*new["names"], "none"], strict=False)
            name, now = next(pair for pair in pairs if pair[0] != pair[1])
            raise CheckpointError(f"parameter group {index} has {name} in the checkpoint, {now} here", hint)


def take_over(
    optimizer: Optimizer, schedule: Any, saved: Any, there: dict[str, Any], here: dict[str, Any], step: int
) -> list[str]:
    """Bring the schedule back, or forward as it is now, apply changed values; return what to say about it.

    The optimizer has the checkpoint's groups already. `saved` is the schedule's state in the checkpoint.
    """
    said = _changed_settings(there, here)
    group_changes = _changed_groups(there, here)
    said += [text for _, key, text in group_changes if key != "initial_lr"]
    if not group_changes:
        said += [f"{name} has no effect: the task's own optimizer does not read it" for name in _unread(there, here)]
    if there["steps"] != here["steps"]:
        said.append(f"the run has {here['steps']} steps, was {there['steps']}")
    before = [_float(group["lr"]) for group in optimizer.param_groups]
    schedule_changes = _changed_schedule(there, here)
    if schedule_changes and step < here["steps"] and not _follows_metric(schedule):
        _bring_forward(optimizer, schedule, here, step)
    else:
        _load(schedule, saved, there, here)
        _apply(optimizer, group_changes, there, here, scale=schedule is not None)
        if _holds_functions(schedule) and there["steps"] != here["steps"] and step < here["steps"]:
            # Functions hide what they depend on. Brought forward they give the same numbers, if nothing changed.
            _rewind(schedule, here)
            _bring_forward(optimizer, schedule, here, step)
    said += schedule_changes
    after = [_float(group["lr"]) for group in optimizer.param_groups]
    if before != after:
        said.append(f"the learning rate goes on at {_numbers(after)}, was {_numbers(before)}")
    return said


def foretell(schedule: Any, steps: int) -> list[str]:
    """Say what a schedule will do that its user may not expect."""
    return [
        f"CosineAnnealingLR has T_max={part.T_max}, the run {steps} steps: after that the learning rate climbs again"
        for part in _parts(schedule)
        if isinstance(part, CosineAnnealingLR) and part.T_max < steps
    ]


def _changed_settings(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    old, new = there["settings"], here["settings"]
    return [f"{name} is {new[name]}, was {old[name]}" for name in new if name in old and old[name] != new[name]]


def _unread(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    old, new = there["settings"], here["settings"]
    return [name for name in OPTIMIZER_SETTINGS if name in old and old[name] != new.get(name)]


def _changed_groups(there: dict[str, Any], here: dict[str, Any]) -> Changes:
    changes: Changes = []
    for index, (old, new) in enumerate(zip(there["groups"], here["groups"], strict=True)):
        for key, value in new["values"].items():
            if key not in old["values"] or not same(old["values"][key], value):
                was = old["values"].get(key, "absent")
                changes.append((index, key, f"{key} of parameter group {index} is {value}, was {was}"))
    return changes


def _changed_schedule(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    if there["schedules"] != here["schedules"]:
        return [f"the schedule is {_kinds(here)}, was {_kinds(there)}"]
    said = []
    for name, new in here["schedule"].items():
        old = there["schedule"][name]
        kind = here["schedules"][name]
        said += [
            f"{key} of {kind} is {_short(value)}, was {_short(old.get(key))}"
            for key, value in new.items()
            if not key.startswith("_") and not same(old.get(key), value)
        ]
        if not said and not same(old, new):
            said.append(f"{kind} is made otherwise than it was")
    return said


def _bring_forward(optimizer: Optimizer, schedule: Any, here: dict[str, Any], step: int) -> None:
    """Let the schedule that was just made run to `step`, as if it had been there from the start."""
    _set_fresh(optimizer, here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer step came in between
        for _ in range(step if schedule is not None else 0):
            schedule.step()


def _set_fresh(optimizer: Optimizer, here: dict[str, Any]) -> None:
    for group, fresh in zip(optimizer.param_groups, here["groups"], strict=True):
        for key, value in decode(copy.deepcopy(fresh["values"])).items():
            _set(group, key, value)


def _load(schedule: Any, saved: Any, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Load the saved state, with what was changed since in the schedule's making put over it."""
    if schedule is None or there["schedules"] != here["schedules"]:
        return
    state = decode(saved)
    single = not hasattr(schedule, "members")
    for name in here["schedule"]:
        old, new = there["schedule"][name], here["schedule"][name]
        own = state if single else state[name]
        own.update({key: decode(new[key]) for key in new if not same(old.get(key), new[key])})
    schedule.load_state_dict(state)


def _apply(
    optimizer: Optimizer,
    changes: list[tuple[int, str, str]],
    there: dict[str, Any],
    here: dict[str, Any],
    *,
    scale: bool,
) -> None:
    for index, key, _ in changes:
        group = optimizer.param_groups[index]
        old, new = (decode(side["groups"][index]["values"]).get(key) for side in (there, here))
        if key == "lr" and scale and old:  # a schedule has moved it since: what it made of it stays
            new = _float(group["lr"]) * _float(new) / _float(old)
        _set(group, key, new)


def _rewind(schedule: Any, here: dict[str, Any]) -> None:
    for name, part in _members(schedule).items():
        part.load_state_dict(decode(copy.deepcopy(here["schedule"][name])))


def _set(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; a tensor that a schedule or a graph holds keeps its identity."""
    live = group.get(key)
    if isinstance(live, Tensor):
        live.fill_(value if isinstance(value, Tensor) else float(value))
    else:
        group[key] = value


def same(one: Any, other: Any) -> bool:
    """Compare two encoded values, tensors by their bits."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one.cpu(), other.cpu())
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def _members(schedule: Any) -> dict[str, Any]:
    if schedule is None:
        return {}
    members: dict[str, Any] | None = getattr(schedule, "members", None)
    return {"": schedule} if members is None else dict(members)


def _states(schedule: Any) -> dict[str, Any]:
    return {name: encode(part.state_dict(), "schedule") for name, part in _members(schedule).items()}


def _parts(schedule: Any) -> Iterator[Any]:
    """Every schedule, those inside others too."""
    for part in _members(schedule).values():
        yield part
        for inner in getattr(part, "_schedulers", ()):
            yield from _parts(inner)


def _follows_metric(schedule: Any) -> bool:
    return any(isinstance(part, ReduceLROnPlateau) for part in _parts(schedule))


def _holds_functions(schedule: Any) -> bool:
    return any(hasattr(part, "lr_lambdas") or getattr(part, "_scale_fn_custom", None) for part in _parts(schedule))


def _kinds(side: dict[str, Any]) -> str:
    return " and ".join(side["schedules"].values()) or "none"


def _float(value: Any) -> float:
    return float(value)


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in dict.fromkeys(values))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
