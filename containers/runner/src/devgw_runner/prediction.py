"""Evaluate and predict with a trained model: means over a split, and outputs written to one file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from devgw_runner.batch_tree import members_of
from devgw_runner.errors import TaskError, UsageError, storage_error
from devgw_runner.task import LossStep
from devgw_runner.trained import Trained, batches_of

SUFFIXES = (".safetensors", ".npz", ".jsonl")
ONLY = "prediction"


def evaluate(trained: Trained, split: str) -> tuple[dict[str, float], int]:
    """Return the means of loss and metrics over a split, and its number of samples.

    Raises:
        DataError: the task has no such data.
    """
    step = LossStep(trained.task, trained.model).eval()
    sums: dict[str, Tensor] = {}
    samples = 0
    with torch.no_grad():
        for batch in batches_of(trained, split):
            with trained.autocast():
                loss, metrics = step(batch)
                metrics = {**metrics, **trained.task.metrics(trained.model, batch)}
            weight = trained.task.samples(batch)
            samples += weight
            for name, value in {"loss": loss, **metrics}.items():
                weighted = value.detach().double() * weight
                sums[name] = sums[name] + weighted if name in sums else weighted
    return {name: float(total) / max(1, samples) for name, total in sums.items()}, samples


def predict(trained: Trained, split: str, output: Path) -> int:
    """Write the outputs for a split to `output` and return the number of samples; complete, or not at all.

    Raises:
        UsageError: the suffix is not known.
        TaskError: the outputs do not fit the format.
    """
    if output.suffix not in SUFFIXES:
        raise UsageError(f"{output} has no known suffix", f"--output takes a file that ends in {', '.join(SUFFIXES)}")
    outputs: list[tuple[dict[str, Any], int]] = []
    with torch.inference_mode():
        for batch in batches_of(trained, split):
            with trained.autocast():
                out = trained.task.predict(trained.model, batch)
            outputs.append((_named(out), trained.task.samples(batch)))
    temporary = output.with_name(output.name + ".tmp")
    try:
        if output.suffix == ".jsonl":
            _write_lines(outputs, temporary)
        else:
            _write_tensors(outputs, temporary, output.suffix)
        temporary.replace(output)
    except OSError as exc:
        raise storage_error(exc, "writing predictions") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return sum(count for _, count in outputs)


def _named(out: Any) -> dict[str, Any]:
    """Give each part of an output a name, and bring it to the host."""
    if isinstance(out, Mapping):
        return {str(name): _on_host(value) for name, value in out.items() if value is not None}
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return {name: _on_host(value) for name, value in zip(out._fields, out, strict=True)}
    if isinstance(out, tuple):
        return {f"{ONLY}_{index}": _on_host(value) for index, value in enumerate(out)}
    return {ONLY: _on_host(out)}


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return value.float() if value.dtype in {torch.bfloat16, torch.float16} else value
    if isinstance(value, Mapping):
        return {name: _on_host(part) for name, part in value.items()}
    return [_on_host(part) for part in value] if isinstance(value, list | tuple) else value


def _write_tensors(outputs: list[tuple[dict[str, Any], int]], path: Path, suffix: str) -> None:
    joined: dict[str, Tensor] = {}
    for name in outputs[0][0] if outputs else ():
        joined[name] = _join(name, [named.get(name) for named, _ in outputs])
    if suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in joined.items()}, path)
        return
    with path.open("wb") as stream:
        arrays: dict[str, Any] = {name: value.numpy() for name, value in joined.items()}
        np.savez(stream, **arrays)


def _join(name: str, parts: Iterable[Any]) -> Tensor:
    tensors = list(parts)
    shapes = {tuple(part.shape[1:]) if isinstance(part, Tensor) and part.dim() else None for part in tensors}
    if None in shapes or len(shapes) != 1:
        raise TaskError(
            f"the output {name} is not one tensor of samples with one shape", "write it to a file that ends in .jsonl"
        )
    return torch.cat(tensors)


def _write_lines(outputs: list[tuple[dict[str, Any], int]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for named, count in outputs:
            for index in range(count):
                line = {name: _plain(_of_sample(name, value, index, count)) for name, value in named.items()}
                stream.write(json.dumps(line) + "\n")


def _of_sample(name: str, value: Any, index: int, count: int) -> Any:
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == count:
        return value[index]
    if isinstance(value, list) and len(value) == count:
        return value[index]
    raise TaskError(f"the output {name} has no entry for each of {count} samples", "let Task.predict return one each")


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in members_of(value)]
    return value
