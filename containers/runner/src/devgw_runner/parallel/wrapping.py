"""Make a loss step parallel: DDP around it, or FSDP2 inside it.

See `world` for the group of processes, and `sharding` for the preflight.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from devgw_runner.blocks import find_blocks
from devgw_runner.errors import ShardingError
from devgw_runner.parallel.sharding import check_sharding
from devgw_runner.parallel.tensor import DATA
from devgw_runner.parallel.unused import AttentiveDDP
from devgw_runner.precision import AUTOCAST_DTYPES
from devgw_runner.task import LossStep


def wrap_ddp(step: LossStep, device: torch.device, *, find_unused: bool = False) -> AttentiveDDP:
    """Wrap the (already compiled) step; gradients are averaged over processes in its backward pass."""
    device_ids = [device.index] if device.type == "cuda" else None
    return AttentiveDDP(step, device_ids=device_ids, find_unused_parameters=find_unused)


def shard_model(
    model: nn.Module, precision: str, device: torch.device, *, cpu_offload: bool, mesh: DeviceMesh | None = None
) -> None:
    """Shard the model in place, block by block, so that only one block's parameters are gathered at a time.

    `mesh` is that of a model whose layers are shared already.
    A model in host memory is moved to the device in the same way: one block at a time, and only its shard stays.

    Raises:
        ShardingError: a parameter breaks a rule of FSDP2.
    """
    check_sharding(model)
    dtype = AUTOCAST_DTYPES.get(precision)
    reduce_dtype = torch.float32 if dtype else None
    inside = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduce_dtype)
    # What leaves the model is fp32, as under autocast: a loss in bf16 has three digits.
    outside = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduce_dtype, output_dtype=reduce_dtype)
    offload: OffloadPolicy = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    over = init_device_mesh(device.type, (dist.get_world_size(),)) if mesh is None else mesh[DATA]
    try:
        for block in find_blocks(model):
            fully_shard(block, mesh=over, mp_policy=inside, offload_policy=offload)
        fully_shard(model, mesh=over, mp_policy=outside, offload_policy=offload)
    except NotImplementedError as exc:
        reason = (str(exc).splitlines() or ["not implemented"])[0]
        raise ShardingError(f"FSDP2 cannot shard the model: {reason}", "use --parallel ddp") from exc
