"""How the state is copied to host memory before it is written: pinned and without waiting for each tensor.

See `writer` for what is written. On a CPU the plain copy is as quick.
"""

import inspect
from typing import Any

import torch
from torch.distributed.checkpoint import staging
from torch.distributed.checkpoint.state_dict_saver import async_save

ASYNC_SAVE_PARAMETERS = frozenset(inspect.signature(async_save).parameters)


def pinned_stager(device: torch.device, staging_module: Any = staging) -> Any | None:
    """Return a stager that keeps its pinned memory from save to save; None on a CPU, and where torch has none (2.8)."""
    options = getattr(staging_module, "StagingOptions", None)
    if device.type != "cuda" or options is None:
        return None
    return staging_module.DefaultStager(
        options(
            use_pinned_memory=True,
            use_shared_memory=False,
            use_async_staging=False,  # the step after the save changes the state
            use_non_blocking_copy=True,
        )
    )


def known_parameters(wanted: dict[str, Any], known: frozenset[str] = ASYNC_SAVE_PARAMETERS) -> dict[str, Any]:
    """Leave out what this torch's async_save does not know, and what is None.

    2.8 has no `no_dist`: without a process group it saves alone by itself.
    """
    return {name: value for name, value in wanted.items() if name in known and value is not None}
