"""Make a loss step parallel: DDP around it, or FSDP2 inside it.

The group is `world`'s; the preflight is `sharding`'s.
"""

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from devgw_runner.blocks import find_blocks
from devgw_runner.parallel.sharding import check_sharding
from devgw_runner.precision import AUTOCAST_DTYPES
from devgw_runner.task import LossStep


def wrap_ddp(step: LossStep, device: torch.device, *, find_unused: bool = False) -> DistributedDataParallel:
    """Wrap the (already compiled) step; gradients are averaged over processes in its backward pass."""
    device_ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(step, device_ids=device_ids, find_unused_parameters=find_unused)


def shard_model(model: nn.Module, precision: str, *, cpu_offload: bool) -> None:
    """Shard the model in place, block by block, so that only one block's parameters are gathered at a time.

    Raises:
        ShardingError: a parameter breaks a rule of FSDP2.
    """
    check_sharding(model)
    dtype = AUTOCAST_DTYPES.get(precision)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
    offload: OffloadPolicy = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    for block in find_blocks(model):
        fully_shard(block, mp_policy=policy, offload_policy=offload)
    fully_shard(model, mp_policy=policy, offload_policy=offload)
