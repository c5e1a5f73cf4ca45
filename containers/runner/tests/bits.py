"""Compare two checkpoints bit by bit: tensors with their layouts, and everything in the trainer files."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load


def all_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor that torch.distributed.checkpoint holds: model, buffers and optimizer."""
    reader = FileSystemReader(checkpoint)
    target = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(target, storage_reader=reader, no_dist=True)
    return target


def trainer_files(checkpoint: Path) -> dict[str, Any]:
    return {
        path.name: torch.load(path, weights_only=True, map_location="cpu")
        for path in sorted(checkpoint.glob("trainer-*.pt"))
    }


def differences(one: Path, other: Path) -> list[str]:
    """Return the path of everything that is not the same bits in both checkpoints."""
    first, second = (dict(_leaves([all_tensors(path), trainer_files(path)], "")) for path in (one, other))
    return [
        f"{path}: {first.get(path, 'absent')} and {second.get(path, 'absent')}"
        for path in sorted(first.keys() | second.keys())
        if first.get(path, "absent") != second.get(path, "absent")
    ]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each leaf as text that tells it from every other: its type, layout and bits."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        yield path, f"{type(value).__name__} of {len(value)}"
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}.{index}")
    elif isinstance(value, Tensor):
        content = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        yield path, f"{value.dtype} {tuple(value.shape)} {value.stride()} {digest} {value.flatten()[:3].tolist()}"
    else:
        yield path, f"{type(value).__name__} {value!r}"
