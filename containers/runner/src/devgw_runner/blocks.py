"""Find a model's repeated blocks: what is sharded, compiled or recomputed one by one."""

from torch import nn


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks: the members of the model's ModuleLists, the usual home of layers.

    A list inside such a member is that block's own affair.
    """
    blocks: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            blocks.extend(member for member in child if any(True for _ in member.parameters()))
        else:
            blocks.extend(find_blocks(child))
    return blocks
