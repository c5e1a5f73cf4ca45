"""The sharding preflight: name the tensor that FSDP2 would refuse, and the rule it breaks.

torch raises without the name (`FSDP does not support non-contiguous parameters yet`); this says which,
with shape, stride and dtype, before any collective has started.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from devgw_runner.errors import ShardingError

SHARDABLE_DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16, torch.float64})


@dataclass(frozen=True)
class Refusal:
    """One parameter that cannot be sharded."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    rule: str

    def describe(self) -> str:
        return f"{self.name}: shape {self.shape}, stride {self.stride}, {self.dtype}: {self.rule}"


def find_refusals(model: nn.Module) -> list[Refusal]:
    """Return every parameter that breaks one of FSDP2's rules."""
    return [
        Refusal(name, tuple(parameter.shape), tuple(parameter.stride()), parameter.dtype, rule)
        for name, parameter in model.named_parameters()
        for rule in _broken_rules(parameter)
    ] + list(_mixed_dtypes(model))


def check_sharding(model: nn.Module) -> None:
    """Refuse a model that FSDP2 cannot shard.

    Raises:
        ShardingError: it describes the first offending parameter and counts the others.
    """
    refusals = find_refusals(model)
    if not refusals:
        return
    others = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    raise ShardingError(
        f"cannot shard parameter {refusals[0].describe()}{others}",
        "change that parameter in Task.model, or use --parallel ddp",
    )


def check_thawed(model: nn.Module, thawed: Collection[str]) -> None:
    """Refuse what was thawed beside parameters of another dtype: FSDP2 reduces their gradients in one buffer.

    Raises:
        ShardingError: it describes the first.
    """
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    expected = next((parameter.dtype for name, parameter in trainable.items() if name not in thawed), None)
    for name, parameter in trainable.items():
        if name in thawed and expected not in {None, parameter.dtype}:
            raise ShardingError(
                f"cannot train the thawed parameter {name}: it has {parameter.dtype}, the others {expected}",
                "leave it frozen, or use --parallel ddp",
            )


def _broken_rules(parameter: nn.Parameter) -> Iterator[str]:
    if parameter.dim() == 0:
        yield "a scalar cannot be sharded; make it a tensor of one element"
    elif not parameter.is_contiguous():
        yield "the memory must be contiguous; call .contiguous() and drop channels_last"
    if parameter.is_sparse or parameter.layout is not torch.strided:
        yield "the layout must be strided"
    elif parameter.dtype not in SHARDABLE_DTYPES:
        yield "the dtype must be a real floating type"


def _mixed_dtypes(model: nn.Module) -> Iterator[Refusal]:
    """FSDP2 gathers a group in one buffer, so the trainable parameters need one dtype."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        return
    expected = trainable[0][1].dtype
    for name, parameter in trainable:
        if parameter.dtype != expected:
            yield Refusal(
                name,
                tuple(parameter.shape),
                tuple(parameter.stride()),
                parameter.dtype,
                f"all trainable parameters need one dtype, the first has {expected}",
            )
