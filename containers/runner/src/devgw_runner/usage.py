"""How much memory the run has used at its peak, on the device or, on a CPU, of the process."""

import resource

import torch

KIBIBYTE = 1024


def memory_in_use(device: torch.device) -> int:
    """Return peak bytes: torch's allocator on a GPU, the resident set on a CPU. No synchronisation."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE
