"""How a tensor lies in memory: shape, strides, dtype, host or device, placements.

Fused kernels read memory in order: a state with other strides than its parameter's is a wrong state.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, zeros
from torch.distributed.tensor.placement_types import _StridedShard

REPLICATED = -1  # how a placement that is no shard is written


@dataclass(frozen=True)
class Layout:
    """One tensor's layout. `placements` are the sharded dimensions of a DTensor, None for a plain tensor.

    `splits` are the factors by which FSDP2 deals out a dimension that tensor parallelism divided before, 0 elsewhere.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    host: bool
    placements: tuple[int, ...] | None = None
    splits: tuple[int, ...] = ()

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        placements: tuple[int, ...] | None = None
        splits: tuple[int, ...] = ()
        if isinstance(tensor, DTensor):
            placements = tuple(getattr(p, "dim", REPLICATED) for p in tensor.placements)
            factors = tuple(getattr(p, "split_factor", 0) for p in tensor.placements)
            splits = factors if any(factors) else ()
        is_host = tensor.device.type == "cpu"
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, is_host, placements, splits)

    @classmethod
    def read(cls, saved: dict[str, Any]) -> "Layout":
        placements = saved["placements"]
        return cls(
            shape=tuple(saved["shape"]),
            stride=tuple(saved["stride"]),
            dtype=saved["dtype"],
            host=saved["host"],
            placements=None if placements is None else tuple(placements),
            splits=tuple(saved.get("splits", ())),
        )

    def write(self) -> dict[str, Any]:
        """Return it in types that `torch.load(weights_only=True)` accepts."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def make(self, device: torch.device, mesh: DeviceMesh | None = None) -> Tensor:
        """Return an empty tensor of this layout; `device` is the run's."""
        if self.placements is not None and mesh is not None:
            splits = self.splits or (0,) * len(self.placements)
            placements = [_placement(dim, split) for dim, split in zip(self.placements, splits, strict=True)]
            return zeros(*self.shape, dtype=self.dtype, device_mesh=mesh, placements=placements)
        where = torch.device("cpu") if self.host else device
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=where)

    def difference(self, other: "Layout", *, same_device: bool = True) -> str:
        """Say what is not as here in `other`, or return an empty string."""
        if self.shape != other.shape:
            return f"shape {self.shape} there, {other.shape} here"
        if self.dtype != other.dtype:
            return f"{self.dtype} there, {other.dtype} here"
        if _steps(self) != _steps(other):
            return f"strides {self.stride} there, {other.stride} here"
        if (self.placements, self.splits) != (other.placements, other.splits):
            return f"sharded along {self.placements} there, {other.placements} here"
        if same_device and self.host != other.host:
            return (
                "in host memory there, on the device here" if self.host else "on the device there, in host memory here"
            )
        return ""


def _placement(dim: int, split: int) -> Placement:
    if dim == REPLICATED:
        return Replicate()
    return _StridedShard(dim, split_factor=split) if split else Shard(dim)


def lay_out_as_saved(model: nn.Module, layouts: dict[str, Layout], device: torch.device) -> None:
    """Give parameters and buffers the strides they were saved with, buffers also dtype and place; no values."""
    for prefix, module in model.named_modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            wanted = layouts.get(f"{prefix}.{name}" if prefix else name)
            if wanted is None or isinstance(tensor, DTensor) or not wanted.difference(Layout.of(tensor)):
                continue
            if not isinstance(tensor, nn.Parameter):
                setattr(module, name, wanted.make(device))
            elif wanted.shape == tensor.shape and wanted.dtype == tensor.dtype:
                tensor.data = wanted.make(device)


def is_separate(tensor: Tensor) -> bool:
    """Say whether each element has a place of its own, as torch.distributed.checkpoint needs to fill it."""
    if isinstance(tensor, DTensor):
        return True
    if type(tensor) not in {Tensor, nn.Parameter} or tensor.layout is not torch.strided:
        return False
    reach = 1
    for size, step in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=lambda pair: pair[1]):
        if size > 1:
            if step < reach:
                return False
            reach = step * (size - 1) + reach
    return True


def _steps(layout: Layout) -> tuple[int, ...]:
    """The strides that matter: a dimension of one element is never stepped along."""
    if 0 in layout.shape:
        return ()
    return tuple(step for size, step in zip(layout.shape, layout.stride, strict=True) if size > 1)
