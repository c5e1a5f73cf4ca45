"""What hooks switch in a model while it trains: which parameters are frozen, which modules rest in evaluation mode.

Both decide what the next step computes, and neither is part of a module's `state_dict`.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn


def frozen_parameters(model: nn.Module) -> list[str]:
    """Return the names of the parameters that take no gradient."""
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def resting_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules in evaluation mode; the model's own is empty."""
    return [name for name, module in model.named_modules() if not module.training]


def read_switches(model: nn.Module, frozen_at_start: list[str]) -> dict[str, list[str]]:
    """Return what a checkpoint keeps."""
    resting = resting_modules(model)
    return {"frozen_at_start": frozen_at_start, "frozen": frozen_parameters(model), "resting": resting}


def freeze_as_saved(model: nn.Module, saved: Mapping[str, Any], frozen_at_start: list[str]) -> None:
    """Freeze what was frozen, unless the task builds its model with other parameters frozen than it did then."""
    if not saved or saved["frozen_at_start"] != frozen_at_start:
        return
    frozen = set(saved["frozen"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def set_training_mode(model: nn.Module, resting: list[str]) -> None:
    """Let the model train, except for the modules that rest."""
    model.train()
    names = set(resting)
    for name, module in model.named_modules():
        if name in names:
            module.training = False
