"""What a GPU's id says of it: whose it is, and by which name CDI knows it."""

import re

from gateway.model import GpuUuid

CDI_KINDS = ("nvidia.com/gpu", "amd.com/gpu")
"""NVIDIA's and AMD's, as their own tools call them in CDI specs."""
_AMD = re.compile(r"GPU-[0-9a-f]{16}")


def is_amd(gpu: GpuUuid) -> bool:
    """Whether it is AMD's: `GPU-` and the 16 digits of its unique_id, as ROCR_VISIBLE_DEVICES takes it."""
    return _AMD.fullmatch(gpu) is not None


def cdi_name(gpu: GpuUuid) -> str:
    """Return the qualified name of a GPU in CDI specs that name devices by their ids."""
    return f"{CDI_KINDS[is_amd(gpu)]}={gpu}"
