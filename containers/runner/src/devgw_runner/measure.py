"""Find the facts that a plan rests on: the device, the model, the data, and one timed step.

Nothing is decided here, and nothing that is measured leaves a trace in the model or the random state.
"""

import importlib.util
import os
import shutil
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from devgw_runner.activation_checkpointing import keeps_statistics
from devgw_runner.batch_tree import take_samples, walk_leaves
from devgw_runner.errors import PreflightError
from devgw_runner.ladder import rehearse, untouched_buffers
from devgw_runner.plan.facts import DeviceFacts, ModelFacts
from devgw_runner.precision import AutocastFactory
from devgw_runner.randomness import untouched_randomness
from devgw_runner.task import LossStep, batch_samples, check_loss

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
TIMED_STEPS = 3
LARGEST_PROBE = 8  # memory grows linearly with the batch; this and a quarter of it give the slope
SMALLEST_SLOPE = 4  # a quarter of less is no batch that batch norm would take


def find_device(wanted: str, local_rank: int) -> torch.device:
    """Return the device of this process.

    Raises:
        PreflightError: CUDA was asked for and is not there.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise PreflightError("no CUDA device is usable", "'devgw-run doctor' names the reason")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def device_facts(device: torch.device) -> DeviceFacts:
    if device.type == "cpu":
        return DeviceFacts(kind="cpu")
    properties = torch.cuda.get_device_properties(device)
    return DeviceFacts(
        kind="cuda",
        name=properties.name,
        hip=torch.version.hip or "",
        capability=(properties.major, properties.minor),
        multiprocessors=properties.multi_processor_count,
        memory_bytes=torch.cuda.mem_get_info(device)[0],
        is_mig="MIG" in properties.name or "MIG-" in os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        visible=torch.cuda.device_count(),
    )


def model_facts(model: nn.Module) -> ModelFacts:
    parameters = list(model.parameters())
    return ModelFacts(
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        keeps_statistics=keeps_statistics(model),
        convolutions=sum(isinstance(module, CONVOLUTIONS) for module in model.modules()),
        linear_shapes=tuple(
            (module.in_features, module.out_features) for module in model.modules() if isinstance(module, nn.Linear)
        ),
    )


def batch_bytes(batch: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in walk_leaves(batch) if isinstance(leaf, Tensor))


def check_first_loss(step: LossStep, batch: Any, task: object) -> None:
    """Compute one loss and look at it, without a trace.

    Raises:
        TaskError: it is not a differentiable scalar.
    """
    with untouched_randomness(), untouched_buffers(step.model):
        loss, _ = step(batch)
        check_loss(loss, task)


def time_step(step: LossStep, batch: Any, autocast: AutocastFactory) -> float:
    """Return the seconds of one eager forward and backward pass, the quickest after a first one."""
    rehearse(step, batch, autocast)
    seconds = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        rehearse(step, batch, autocast)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def count_flops_per_sample(step: LossStep, batch: Any, autocast: AutocastFactory) -> float:
    """Return the operations per sample of forward and backward, counted by torch on an eager pass."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        rehearse(step, batch, autocast)
    return float(counter.get_total_flops()) / batch_samples(batch)


def measure_bytes_per_sample(step: LossStep, batch: Any, autocast: AutocastFactory) -> int | None:
    """Return the device memory that one more sample takes; None on a CPU.

    Two rehearsals of different size give the slope, which the model's own state does not disturb. Neither has
    more samples than `batch`.
    """
    device = next(step.parameters()).device
    if device.type != "cuda":
        return None
    sizes = probe_sizes(batch_samples(batch))
    peaks = []
    for size in sizes:
        torch.cuda.reset_peak_memory_stats(device)
        resting = torch.cuda.memory_allocated(device)
        rehearse(step, take_samples(batch, range(size), batch_samples(batch)), autocast)
        peaks.append(torch.cuda.max_memory_allocated(device))
    if len(sizes) == 1:
        return max(1, (peaks[0] - resting) // sizes[0])
    return max(1, (peaks[1] - peaks[0]) // (sizes[1] - sizes[0]))


def probe_sizes(samples: int) -> tuple[int, ...]:
    """Return the batches to measure memory with: two for a slope, or one where `samples` are few."""
    large = min(LARGEST_PROBE, samples)
    return (large,) if large < SMALLEST_SLOPE else (max(2, large // 4), large)


def has_cpp_compiler() -> bool:
    """Say whether generated code can be compiled: Inductor takes $CXX, else g++ or clang++."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)


def has_torchao() -> bool:
    return importlib.util.find_spec("torchao") is not None
