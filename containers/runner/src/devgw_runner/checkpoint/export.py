"""Write weights to one safetensors file; the model's own come out of a checkpoint without the script that made them."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from devgw_runner.checkpoint import store
from devgw_runner.checkpoint.state import MODEL_PREFIX
from devgw_runner.checkpoint.task_state import TASK_PREFIX
from devgw_runner.errors import StorageError, storage_error


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Return the model's tensors of a verified checkpoint, whole, on the CPU.

    Raises:
        CheckpointError: the checkpoint is corrupt.
    """
    store.verify(checkpoint)
    reader = FileSystemReader(checkpoint)
    entries = reader.read_metadata().state_dict_metadata
    target = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if name.startswith(MODEL_PREFIX) and isinstance(entry, TensorStorageMetadata)
    }
    load(target, storage_reader=reader, no_dist=True)
    weights = {name.removeprefix(MODEL_PREFIX): value for name, value in target.items()}
    # What torch.distributed.checkpoint cannot fill in place, such as expanded buffers, is with the trainer's state.
    saved = torch.load(checkpoint / "trainer-0.pt", weights_only=True, map_location="cpu")
    rest = saved.get("model", {}).items()
    return weights | {name: value.to_dense().contiguous() for name, value in rest if isinstance(value, Tensor)}


def names_kept_by_task(checkpoint: Path) -> list[str]:
    """Return under which names the task kept tensors beside the model: an average, a teacher.

    The checkpoint is one that was verified: its files are not read again for this.
    """
    entries = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    # task.RANK.NAME, and what is below NAME
    return sorted({name.split(".")[2] for name in entries if name.startswith(TASK_PREFIX)})


def write_weights(weights: dict[str, Tensor], checkpoint: Path, output: Path) -> None:
    """Write a model's tensors to `output`; the file appears complete or not at all.

    Raises:
        CheckpointError: the checkpoint is corrupt.
        StorageError: the file cannot be written.
    """
    manifest = store.read_manifest(checkpoint)
    temporary = output.with_name(output.name + ".tmp")
    try:
        save_file(weights, temporary, metadata={"step": str(manifest.step), "torch": manifest.torch})
        temporary.replace(output)
    except SafetensorError as exc:  # its writer wraps the operating system's word in its own
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {output}: {str(exc).splitlines()[0]}", "choose another --output") from exc
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise storage_error(exc, "exporting weights") from exc
