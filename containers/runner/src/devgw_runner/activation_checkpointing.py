"""Compute the activations of blocks again in the backward pass instead of keeping them: less memory, more time.

The result is the same bits: random draws are repeated, and batch norm's running statistics move once.
"""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from devgw_runner.errors import TaskError


def recompute_blocks(blocks: list[nn.Module], kind: str) -> int:
    """Make each block forget its activations; return how many do.

    Raises:
        TaskError: there is none, or one is no module.
    """
    if not blocks:
        raise TaskError(
            "--activation-checkpointing finds no blocks: the model has no nn.ModuleList",
            f"let {kind}.blocks(model) return the repeated layers",
        )
    for block in blocks:
        if not isinstance(block, nn.Module):
            raise TaskError(f"{kind}.blocks returned a {type(block).__name__}", "return a list of nn.Module")
        _recompute(block)
    return len(blocks)


def keeps_statistics(module: nn.Module) -> bool:
    """Say whether a forward pass changes the module: batch norm's running statistics."""
    return any(isinstance(part, _BatchNorm) and part.track_running_stats for part in module.modules())


def _recompute(block: nn.Module) -> None:
    forward = block.forward
    with_statistics = keeps_statistics(block)

    @functools.wraps(forward)
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        if not block.training:
            return forward(*args, **kwargs)
        if with_statistics:
            contexts = functools.partial(_contexts, block)
            return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = recomputed  # the keys of the state dict stay as they are


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Let running statistics stand still while a forward pass is repeated: with no momentum they keep their bits."""
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
