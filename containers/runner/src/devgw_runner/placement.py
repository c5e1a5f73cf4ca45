"""Bring the model to its device before anything runs on it: whole, or sharded block by block.

Under FSDP2 the whole model is never on one device: `fully_shard` moves one block at a time from host memory. A
model that is on torch's meta device has no memory at all until its shards have; then its modules initialise them.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from devgw_runner.activation_checkpointing import recompute_blocks
from devgw_runner.config import TrainConfig
from devgw_runner.errors import TaskError
from devgw_runner.parallel.tensor import make_mesh, share_layers
from devgw_runner.parallel.waiting import set_mesh_timeout
from devgw_runner.parallel.wrapping import shard_model
from devgw_runner.plan import numerics, throughput
from devgw_runner.plan.facts import Facts
from devgw_runner.precision import convert_to_fp8
from devgw_runner.task import Task


def place_model(task: Task[Any], model: nn.Module, config: TrainConfig, facts: Facts, device: torch.device) -> None:
    """Move, or shard, and fill what is on the meta device.

    Raises:
        UsageError, PrecisionError: the settings contradict each other or the device.
        ShardingError: a parameter breaks a rule of FSDP2.
        TaskError: a module on the meta device cannot initialise itself.
    """
    is_sharded = throughput.choose_parallel(config, facts).value == "fsdp"
    is_empty = any(parameter.is_meta for parameter in model.parameters())
    ties = _find_ties(model) if is_empty else []
    if is_sharded:
        if config.activation_checkpointing == "blocks":
            recompute_blocks(task.blocks(model), type(task).__name__)
        precision = numerics.choose_precision(config, facts).value
        if precision == "fp8":
            convert_to_fp8(model)
        mesh = None
        if config.tensor_parallel > 1:
            mesh = make_mesh(device, config.tensor_parallel)
            set_mesh_timeout(mesh, config.group_timeout_seconds)
            share_layers(model, task.tensor_plan(model), mesh, type(task).__name__)
        shard_model(model, precision, device, cpu_offload=config.cpu_offload, mesh=mesh)
    if is_empty:
        _initialise(model, torch.device("cpu") if config.cpu_offload else device)
        _require_ties(model, ties)
    elif not is_sharded:
        model.to(device)


def give_back_gathered(model: nn.Module) -> None:
    """Shard again what a forward pass without a backward pass left gathered: FSDP2 keeps the root for the latter.

    Until then `parameters()` gives whole tensors that nobody trains: an optimizer made of them would update nothing.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _initialise(model: nn.Module, device: torch.device) -> None:
    """Give every tensor memory, and let each module that has tensors of its own fill them.

    Raises:
        TaskError: one has no `reset_parameters`.
    """
    model.to_empty(device=device)
    with torch.no_grad():
        for name, module in model.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            reset = getattr(module, "reset_parameters", None)
            if own and reset is None:
                what = f"{name or 'the model'} ({type(module).__name__})"
                raise TaskError(
                    f"{what} is on the meta device and cannot initialise itself",
                    "give it a reset_parameters method, or build the model on the CPU",
                )
            if reset is not None and own:
                reset()


def _find_ties(model: nn.Module) -> list[list[str]]:
    """Return the names of parameters that are one tensor."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [tied for tied in names.values() if len(tied) > 1]


def _require_ties(model: nn.Module, ties: list[list[str]]) -> None:
    """Refuse a model whose tied weights came apart: giving a meta tensor memory makes a new one for each name."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for first, *others in ties:
        if any(parameters[name] is not parameters[first] for name in others):
            raise TaskError(
                f"{first} and {others[0]} are one tensor, which does not survive the meta device",
                "build the model on the CPU",
            )
