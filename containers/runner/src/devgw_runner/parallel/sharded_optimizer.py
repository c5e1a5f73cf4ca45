"""The optimizers' preflight under FSDP2: can torch step them on sharded parameters?

torch says so at the first step, in words about operators and DTensors, after minutes of compilation. Here each
of torch's own optimizers takes one step on small stand-ins; nothing of the run is touched. Others fail at their
first step, and are told in the same words.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, zeros
from torch.optim import Optimizer

from devgw_runner.errors import ShardingError
from devgw_runner.optimizers import JointOptimizer
from devgw_runner.parallel.world import failed_by_another

OF_A_DTENSOR = ("DTensor", "sharding strategy", "sharding propagation")


def rehearse(optimizer: Optimizer) -> None:
    """Refuse an optimizer of torch's that cannot step on the sharded parameters it holds.

    Raises:
        ShardingError: it names the optimizer and what torch says.
    """
    for member in members(optimizer):
        if type(member).__module__.partition(".")[0] == "torch" and _is_sharded(member):
            try:
                _stand_in(member).step()
            except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as exc:
                if failed_by_another(exc):
                    raise
                raise refusal(member, exc) from exc


@contextmanager
def sharded_step(optimizer: Optimizer) -> Iterator[None]:
    """Translate what torch says of a step that cannot be taken on sharded parameters.

    Raises:
        ShardingError: the step failed because its parameters are sharded.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as exc:
        if isinstance(exc, torch.OutOfMemoryError) or not any(word in str(exc) for word in OF_A_DTENSOR):
            raise
        sharded = next((member for member in members(optimizer) if _is_sharded(member)), None)
        if sharded is None:
            raise
        raise refusal(sharded, exc) from exc


def members(optimizer: Optimizer) -> list[Optimizer]:
    """Return the optimizers that a joint one is made of, or the one."""
    return list(optimizer.members.values()) if isinstance(optimizer, JointOptimizer) else [optimizer]


def refusal(optimizer: Optimizer, cause: BaseException) -> ShardingError:
    """Say which optimizer it is, and the first line of torch's reason."""
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    name = type(optimizer).__name__ + ("(fused=True)" if is_fused else "")
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    instead = "foreach=True instead of fused=True" if is_fused else "another optimizer, such as AdamW"
    return ShardingError(f"{name} cannot step on sharded parameters: {reason}", f"use {instead}, or --parallel ddp")


def _is_sharded(optimizer: Optimizer) -> bool:
    return any(isinstance(p, DTensor) for group in optimizer.param_groups for p in group["params"])


def _stand_in(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer of the same kind and settings over small zeros that are sharded like its parameters."""
    rehearsed: Optimizer = object.__new__(type(optimizer))
    rehearsed.__dict__.update(vars(optimizer))
    rehearsed.__dict__.pop("step", None)  # a schedule's wrapper counts steps
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        rehearsed.__dict__[hooks] = OrderedDict()
    state: defaultdict[torch.Tensor, Any] = defaultdict(dict)
    groups = []
    for group in optimizer.param_groups:
        by_shape = {_small_shape(p): p for p in group["params"] if p.requires_grad}
        small = {_small(parameter, shape): parameter for shape, parameter in by_shape.items()}
        state |= {made: _small_state(optimizer.state[p], p, made) for made, p in small.items() if p in optimizer.state}
        settings = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in group.items()}
        groups.append(settings | {"params": list(small)})
    rehearsed.__dict__ |= {"state": state, "param_groups": groups}
    return rehearsed


def _small_state(state: dict[str, Any], parameter: torch.Tensor, small: torch.Tensor) -> dict[str, Any]:
    """What an optimizer made before its first step (Adagrad's sums), in the size of the stand-in."""

    def resized(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return torch.zeros_like(small.detach()) if value.shape == parameter.shape else value.clone()

    return {name: resized(value) for name, value in state.items()}


def _small_shape(parameter: torch.Tensor) -> tuple[int, ...]:
    """Keep what an optimizer may turn on: the dimensions, tall or wide, fewer rows than processes."""
    unit = 2 * parameter.device_mesh.size() if isinstance(parameter, DTensor) else 2
    shape = [unit] * parameter.dim()
    if parameter.dim() > 1 and parameter.shape[0] != parameter.shape[-1]:
        shape[0 if parameter.shape[0] > parameter.shape[-1] else -1] = 2 * unit
    if shape:
        shape[0] = min(shape[0], parameter.shape[0])
    return tuple(shape)


def _small(parameter: torch.Tensor, shape: tuple[int, ...]) -> nn.Parameter:
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        made = nn.Parameter(zeros(*shape, dtype=parameter.dtype, device_mesh=mesh, placements=placements))
    else:
        made = nn.Parameter(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device))
    made.grad = torch.zeros_like(made.detach())
    return made
