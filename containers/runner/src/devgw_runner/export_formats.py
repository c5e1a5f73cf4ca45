"""Export a trained model's forward pass: torch.export, ONNX, a Triton repository. Each is run again and compared.

A file appears only when the numbers agree. Weights alone, as safetensors, are `checkpoint.export`'s.
"""

import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from devgw_runner.batch_tree import take_samples
from devgw_runner.errors import ExportError, UsageError, storage_error
from devgw_runner.trained import Trained, batches_of

# Largest difference from the eager model, as a share of its largest output; fp32 sums are ordered anew.
TOLERANCE = 1e-4
BATCH_SIZES = (2, 1, 3)  # the example first, then two others, where the batch may vary
TRITON_TYPES = {
    torch.float32: "TYPE_FP32",
    torch.float64: "TYPE_FP64",
    torch.float16: "TYPE_FP16",
    torch.int64: "TYPE_INT64",
    torch.int32: "TYPE_INT32",
    torch.uint8: "TYPE_UINT8",
    torch.int8: "TYPE_INT8",
    torch.bool: "TYPE_BOOL",
}

Runner = Callable[[tuple[Tensor, ...]], list[Tensor]]


class Forward(nn.Module):
    """The model's forward pass with tensors in a fixed order in, and a tuple of tensors out."""

    def __init__(self, model: nn.Module, keywords: tuple[str, ...], positional: int) -> None:
        super().__init__()
        self.model = model
        self._keywords = keywords
        self._positional = positional

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        keywords = dict(zip(self._keywords, inputs[self._positional :], strict=True))
        return tuple(named_outputs(self.model(*inputs[: self._positional], **keywords)).values())


@dataclass(frozen=True)
class Example:
    """What the model is traced with and compared on. `inputs` is one batch of two samples by name."""

    forward: Forward
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    varying: bool = True

    def batch(self, samples: int) -> tuple[Tensor, ...]:
        """Return the inputs with another number of samples, by repeating those there are."""
        there = next(iter(self.inputs.values())).shape[0]
        return tuple(take_samples(value, range(samples), there) for value in self.inputs.values())


@dataclass(frozen=True)
class Exported:
    """Where it was written, and the largest difference from the eager model relative to its largest output."""

    path: Path
    difference: float
    varying: bool


def make_example(trained: Trained, split: str) -> Example:
    """Take two samples of a split and run the model on them.

    Raises:
        DataError: the task has no such data.
        ExportError: the model takes or gives something else than tensors.
    """
    batch = next(batches_of(trained, split))
    samples = trained.task.samples(batch)
    arguments, keywords = trained.task.inputs(take_samples(batch, range(BATCH_SIZES[0]), samples))
    given = {**{_input_name(i, len(arguments)): value for i, value in enumerate(arguments)}, **keywords}
    for name, value in given.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            raise ExportError(
                f"the model's input {name} is a {type(value).__name__}", "let Task.inputs return tensors of samples"
            )
    forward = Forward(trained.model, tuple(keywords), len(arguments)).eval()
    with torch.no_grad():
        outputs = named_outputs(trained.model(*arguments, **keywords))
    return Example(forward, given, outputs)


def export(trained: Trained, form: str, output: Path, split: str) -> Exported:
    """Export the model and compare; nothing is left where that fails.

    Raises:
        ExportError: it cannot be exported, or the exported model computes something else.
        UsageError: what the format needs is not installed.
        StorageError: the output cannot be written.
    """
    example = make_example(trained, split)
    temporary = output.with_name(f".tmp-{output.name}")  # torch wants the suffix of its format
    try:
        remove(temporary)
        write = {"torch": _write_torch, "onnx": _write_onnx, "triton": _write_triton}[form]
        runner, varying = write(example, temporary, output.name)
        difference = compare(example, runner, varying=varying)
        remove(output)
        temporary.replace(output)
    except OSError as exc:
        raise storage_error(exc, "exporting the model") from exc
    finally:
        remove(temporary)
    return Exported(output, difference, varying)


def compare(example: Example, runner: Runner, *, varying: bool) -> float:
    """Return the largest difference over several batch sizes.

    Raises:
        ExportError: it is more than rounding explains.
    """
    worst = 0.0
    for samples in BATCH_SIZES if varying else BATCH_SIZES[:1]:
        inputs = example.batch(samples)
        with torch.no_grad():
            expected = example.forward(*inputs)
        got = runner(inputs)
        for name, there, here in zip(example.outputs, expected, got, strict=True):
            worst = max(worst, _difference(name, there, here))
    return worst


def named_outputs(out: Any) -> dict[str, Tensor]:
    """Give each output tensor a name.

    Raises:
        ExportError: the model returns something else than tensors.
    """
    if isinstance(out, Tensor):
        named = {"output": out}
    elif isinstance(out, Mapping):
        named = {str(name): value for name, value in out.items() if value is not None}
    elif isinstance(out, tuple) and hasattr(out, "_fields"):
        named = dict(zip(out._fields, out, strict=True))
    elif isinstance(out, tuple | list):
        named = {f"output_{index}": value for index, value in enumerate(out)}
    else:
        named = {"output": out}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ExportError(
                f"the model's output {name} is a {type(value).__name__}", "an exported model returns tensors only"
            )
    return named


def _difference(name: str, expected: Tensor, got: Tensor) -> float:
    if tuple(got.shape) != tuple(expected.shape):
        raise ExportError(
            f"the exported model's {name} has shape {tuple(got.shape)}, the model's {tuple(expected.shape)}",
            "the batch size may be fixed in the model's code",
        )
    there, here = expected.detach().cpu().double(), got.detach().cpu().double()
    if not there.numel():
        return 0.0
    if not torch.equal(torch.isfinite(there), torch.isfinite(here)):
        raise ExportError(f"the exported model's {name} is not finite where the model's is", "report the model")
    finite = torch.isfinite(there)
    share = (
        float((here - there)[finite].abs().max() / there[finite].abs().max().clamp(min=1e-6)) if finite.any() else 0.0
    )
    if share > TOLERANCE:
        raise ExportError(
            f"the exported model's {name} differs by {share:.2g} of its largest value, allowed is {TOLERANCE:g}",
            "look for randomness, or for values that the trace has frozen, in the model's forward",
        )
    return share


def _trace(example: Example) -> tuple[torch.export.ExportedProgram, bool]:
    """Trace with a batch that may vary, else with the example's own size."""
    inputs = example.batch(BATCH_SIZES[0])
    batch = torch.export.Dim("batch", min=1)
    shapes = {"inputs": tuple({0: batch} for _ in inputs)}
    with _quiet():
        try:
            return torch.export.export(example.forward, inputs, dynamic_shapes=shapes), True
        except Exception as first:  # noqa: BLE001 - torch.export fails in many ways; the second attempt decides
            try:
                return torch.export.export(example.forward, inputs), False
            except Exception as exc:  # noqa: BLE001 - whatever it is, the user gets its first line
                raise ExportError(f"torch.export cannot trace the model: {_first_line(exc)}", _HINT) from first


def _write_torch(example: Example, path: Path, _name: str) -> tuple[Runner, bool]:
    program, varying = _trace(example)
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    return lambda inputs: list(loaded(*inputs)), varying


def _write_onnx(example: Example, path: Path, _name: str) -> tuple[Runner, bool]:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        _require(module)
    program, varying = _trace(example)
    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                input_names=list(example.inputs),
                output_names=list(example.outputs),
                dynamo=True,
                verbose=False,
            )
            assert converted is not None  # noqa: S101 - narrows a type: a program comes back where no file is named
            converted.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as exc:
        raise ExportError(f"the model cannot be written as ONNX: {_first_line(exc)}", _HINT) from exc
    return _onnx_runner(path, list(example.inputs)), varying


def _onnx_runner(path: Path, names: list[str]) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        feed = {name: value.detach().cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return run


def _write_triton(example: Example, path: Path, name: str) -> tuple[Runner, bool]:
    """Write a model repository: <output>/<name>/config.pbtxt and <output>/<name>/1/model.onnx."""
    model = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(name).stem) or "model"
    version = path / model / "1"
    version.mkdir(parents=True)
    runner, varying = _write_onnx(example, version / "model.onnx", name)
    (path / model / "config.pbtxt").write_text(triton_config(model, example, varying=varying), encoding="utf-8")
    return runner, varying


def triton_config(name: str, example: Example, *, varying: bool, largest_batch: int = 64) -> str:
    """Return Triton's model configuration: dims are without the batch where Triton may batch."""
    lines = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {largest_batch if varying else 0}"]
    for kind, tensors in (("input", example.inputs), ("output", example.outputs)):
        for tensor_name, tensor in tensors.items():
            if tensor.dtype not in TRITON_TYPES:
                raise ExportError(f"Triton has no type for {tensor_name}: {tensor.dtype}", "cast it in the model")
            shape = tensor.shape[1:] if varying else tensor.shape
            dims = ", ".join(map(str, shape)) or "1"
            # With a batch of scalars Triton wants one dimension and a reshape to none.
            reshape = "" if len(shape) else "\n    reshape: { shape: [ ] }"
            lines.append(
                f"{kind} [\n  {{\n"
                f'    name: "{tensor_name}"\n    data_type: {TRITON_TYPES[tensor.dtype]}\n'
                f"    dims: [ {dims} ]{reshape}\n  }}\n]"
            )
    if varying:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_HINT = "data-dependent branches and Python objects in forward cannot be traced"


def _require(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(f"{module} is not installed", "pip install 'devgw-runner[export]'")


def _input_name(index: int, count: int) -> str:
    return "input" if count == 1 else f"input_{index}"


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0][:200]}" if lines else type(exc).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' warnings about their own insides from the user."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            exporter.setLevel(level)
