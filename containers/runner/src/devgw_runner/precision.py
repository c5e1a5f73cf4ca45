"""Carry out a precision choice: autocast, loss scaler, TF32 switches, fp8 layers.

Choosing is left to `plan.numerics`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from devgw_runner.plan.numerics import fp8_pays

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp16": torch.float16}

# Largest relative difference between a compiled and an eager loss that rounding explains.
# fp32 sums are reordered by fusion; the halves keep 8 and 11 bits of mantissa.
PARITY_TOLERANCE = {"fp32": 1e-4, "tf32": 2e-3, "bf16": 2e-2, "fp16": 5e-3, "fp8": 6e-2}

# Largest relative difference of one tensor's gradient that rounding explains; a long sum loses more than the loss.
# For the halves the distance from the fp32 gradient is measured and allowed beside it.
GRADIENT_TOLERANCE = {"fp32": 1e-2, "tf32": 3e-2, "bf16": 5e-2, "fp16": 5e-2, "fp8": 3e-1}

AutocastFactory = Callable[[], AbstractContextManager[object]]


def autocast_for(precision: str, device: torch.device, *, sharded: bool) -> AutocastFactory:
    """Return a factory of the context for forward passes; FSDP2 casts by its own policy instead."""
    dtype = AUTOCAST_DTYPES.get(precision)
    if dtype is None or sharded:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=dtype)


def scaler_for(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Return a loss scaler, which does nothing unless the precision is fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def set_matmul_precision(precision: str, *, deterministic: bool) -> None:
    """Set how fp32 products are computed; outside fp32 mode what autocast leaves in fp32 may use TF32."""
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.benchmark = not deterministic


def convert_to_fp8(model: nn.Module) -> int:
    """Replace the linear layers that gain from fp8 in place (torchao), and return their number."""
    from torchao.float8 import convert_to_float8_training

    chosen = 0

    def pays(module: nn.Module, _name: str) -> bool:
        nonlocal chosen
        wanted = isinstance(module, nn.Linear) and fp8_pays(module.in_features, module.out_features)
        chosen += wanted
        return wanted

    convert_to_float8_training(model, module_filter_fn=pays)
    return chosen
