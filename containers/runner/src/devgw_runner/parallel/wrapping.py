"""Make a loss step parallel: DDP around it, or FSDP2 inside it.

See `world` for the group of processes, and `sharding` for the preflight.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from devgw_runner.blocks import find_blocks
from devgw_runner.errors import ShardingError
from devgw_runner.parallel.sharding import check_sharding
from devgw_runner.parallel.tensor import DATA
from devgw_runner.parallel.unused import AttentiveDDP
from devgw_runner.precision import AUTOCAST_DTYPES
from devgw_runner.task import LossStep


def wrap_ddp(
    step: LossStep, device: torch.device, *, find_unused: bool = False, is_begun: bool = False
) -> AttentiveDDP:
    """Wrap the (already compiled) step; gradients are averaged over processes in its backward pass.

    Of a run that has begun, every process has the same weights, and buffers of its own that are to stay.
    """
    device_ids = [device.index] if device.type == "cuda" else None
    return AttentiveDDP(step, device_ids=device_ids, find_unused_parameters=find_unused, init_sync=not is_begun)


def let_go(wrapped: AttentiveDDP) -> None:
    """Take DDP's hooks off the parameters, so that another wrapper can have them."""
    wrapped._remove_autograd_hooks()  # type: ignore[no-untyped-call]  # noqa: SLF001 - torch has no public name for it


def note_dtypes(model: nn.Module) -> None:
    """Let FSDP2 look again at what trains: at its first pass it noted no dtype for a block that was frozen.

    It would then reduce that block's gradients in the dtype of the arithmetic, and find that the weights have another.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            state = module._get_fsdp_state()  # noqa: SLF001 - torch has no public name for it
            groups = getattr(state, "_fsdp_param_groups", None)  # several since torch 2.12
            for group in groups if groups is not None else [state._fsdp_param_group]:  # noqa: SLF001 - the same
                if group is not None:
                    group._init_mp_dtypes()  # noqa: SLF001 - the same


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
