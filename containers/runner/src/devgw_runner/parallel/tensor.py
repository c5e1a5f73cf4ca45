"""Tensor parallelism: some processes share each layer of the task's plan; FSDP2 shards over the others.

The processes are a mesh of two dimensions, `data` and `tensor`. What the plan does not name is whole on each process
of a `tensor` group, so that every parameter is a DTensor of one mesh, as optimizers and checkpoints need.
"""

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module

from devgw_runner.errors import ShardingError, TaskError

DATA, TENSOR = "data", "tensor"
USE_ONE = "or --tensor-parallel 1"


def make_mesh(device: torch.device, tensor: int) -> DeviceMesh:
    """Return the mesh: processes with neighbouring ranks, of one node where they fit, share layers."""
    # torch would say at the first gradient norm that it takes an exchange for each dimension.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    return init_device_mesh(device.type, (dist.get_world_size() // tensor, tensor), mesh_dim_names=(DATA, TENSOR))


def share_layers(model: nn.Module, plan: Mapping[str, ParallelStyle], mesh: DeviceMesh, kind: str) -> None:
    """Carry out the plan, and make whole copies of all other parameters on each process of a group.

    Raises:
        TaskError: the plan is none, or names no layer.
        ShardingError: a parameter cannot be shared or copied; it names the parameter.
    """
    check_plan(model, plan, kind)
    _refuse_ties(model)
    parallelize_module(model, mesh[TENSOR], dict(plan))
    _refuse_uneven(model, mesh[TENSOR].size())
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own or all(isinstance(parameter, DTensor) for parameter in own.values()):
            continue
        _require_layer(name, module, own)
        distribute_module(module, mesh[TENSOR], None, _whole_inputs, _whole_outputs)  # type: ignore[arg-type]  # torch's stub has the hook of a distribute_module that returned nothing


def check_plan(model: nn.Module, plan: object, kind: str) -> None:
    """Refuse a plan that is none or leads nowhere; torch would only warn.

    Raises:
        TaskError: it names the entry.
    """
    hint = f"let {kind}.tensor_plan return {{'blocks.*.up': ColwiseParallel(), 'blocks.*.down': RowwiseParallel()}}"
    if not isinstance(plan, Mapping) or not plan:
        raise TaskError(f"--tensor-parallel needs a plan, and {kind}.tensor_plan has none", f"{hint}, {USE_ONE}")
    names = [name for name, _ in model.named_modules()]
    for pattern, style in plan.items():
        if not isinstance(style, ParallelStyle):
            raise TaskError(f"{kind}.tensor_plan has a {type(style).__name__} for {pattern}", hint)
        if not any(fnmatchcase(name, pattern) for name in names):
            raise TaskError(f"{kind}.tensor_plan names {pattern}, and the model has no such layer", hint)


def _refuse_ties(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(parameter), name)
        if first != name:
            raise ShardingError(
                f"{first} and {name} are one tensor, which tensor parallelism would take apart",
                f"give each a weight of its own, {USE_ONE}",
            )
        if parameter.is_meta:
            raise ShardingError(f"{name} is on the meta device", f"build the model on the CPU, {USE_ONE}")


def _refuse_uneven(model: nn.Module, size: int) -> None:
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            continue
        for placement in parameter.placements:
            dim = getattr(placement, "dim", None)
            if dim is not None and parameter.shape[dim] % size:
                raise ShardingError(
                    f"{name} has {parameter.shape[dim]} rows or columns, which {size} processes cannot share evenly",
                    f"choose a size that {size} divides, {USE_ONE}",
                )


def _require_layer(name: str, module: nn.Module, own: Mapping[str, nn.Parameter]) -> None:
    """Refuse what cannot be copied whole: its module computes with plain tensors, or keeps statistics."""
    parameter = f"{name}.{next(iter(own))}" if name else next(iter(own))
    why = ""
    if any(True for child in module.children() for _ in child.parameters()):
        why = "stands beside other layers"
    elif any(True for _ in module.named_buffers(recurse=False)):
        why = "belongs to a layer with buffers"
    if why:
        raise ShardingError(
            f"{parameter} {why}, and {type(module).__name__} is not in the tensor plan",
            f"put it into a layer of its own, {USE_ONE}",
        )


def _whole_inputs(_module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
    return tuple(_copied(value, mesh) for value in inputs)


def _copied(value: Any, mesh: DeviceMesh) -> Any:
    if isinstance(value, torch.Tensor) and not isinstance(value, DTensor):
        return DTensor.from_local(value, mesh, [Replicate()], run_check=False)
    return value


def _whole_outputs(_module: nn.Module, output: Any, _mesh: DeviceMesh) -> Any:
    return output.redistribute(placements=[Replicate()]).to_local() if isinstance(output, DTensor) else output
