"""Read the GPUs' state: NVIDIA's by NVML, of which this is the only door, else AMD's by `amd`.

MIG slices refuse some questions; what is not supported is left out, never guessed.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from devgw_runner.metrics.amd import read_amd_gpus
from devgw_runner.metrics.state import GpuState


class NvmlUnavailableError(Exception):
    """There is no NVIDIA driver, or it does not answer."""


def read_gpus() -> list[GpuState]:
    """Return the state of every GPU or MIG slice that this process may see.

    Raises:
        NvmlUnavailableError: no driver answers, neither NVIDIA's nor AMD's.
    """
    import pynvml

    try:
        _start(pynvml)
    except NvmlUnavailableError:
        if found := read_amd_gpus():
            return found
        raise
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        slices = [part for handle in handles for part in _mig_slices(pynvml, handle) or [handle]]
        states = [_read(pynvml, handle) for handle in slices]
        return choose_visible(states, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError as exc:
        raise NvmlUnavailableError(str(exc)) from exc
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str:
    """Return the driver's version, such as "580.65.06".

    Raises:
        NvmlUnavailableError: no driver answers.
    """
    import pynvml

    _start(pynvml)
    try:
        return _text(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _start(nvml: Any) -> None:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as exc:
        raise NvmlUnavailableError(str(exc)) from exc


def _mig_slices(nvml: Any, handle: Any) -> list[Any]:
    enabled = _ask(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
    if not enabled:
        return []
    count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    ask_slice = nvml.nvmlDeviceGetMigDeviceHandleByIndex
    found = [_ask(nvml, partial(ask_slice, handle, index)) for index in range(count)]
    return [part for part in found if part is not None]


def _read(nvml: Any, handle: Any) -> GpuState:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    milliwatts = _ask(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    return GpuState(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        utilisation_percent=_ask(nvml, lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        temperature_celsius=_ask(nvml, lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        processes=_ask(nvml, lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))),
    )


def _ask(nvml: Any, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except nvml.NVMLError:  # NOT_SUPPORTED, NOT_FOUND, NO_PERMISSION: the slice does not tell
        return None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def choose_visible(gpus: list[GpuState], setting: str | None) -> list[GpuState]:
    """Return the devices that CUDA would show under CUDA_VISIBLE_DEVICES: numbers or UUIDs, up to the first unknown.

    An empty value hides all. Numbers count in the order of the PCI bus, as we tell CUDA to.
    """
    if setting is None:
        return gpus
    chosen = []
    for entry in (part.strip() for part in setting.split(",")):
        matching = [gpu for gpu in gpus if entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)]
        if entry.isdigit() and int(entry) < len(gpus):
            matching = [gpus[int(entry)]]
        if len(matching) != 1 or matching[0] in chosen:
            break
        chosen.append(matching[0])
    return chosen
