"""Which GPUs and MIG slices this host has: asked of NVML, or read from sysfs (AMD) or CDI specs.

Who holds them is the work of `leases`. A GPU in MIG mode is not listed itself; its slices are.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from gateway.gpus.amd import AmdInventory
from gateway.gpus.cdi import CdiInventory
from gateway.gpus.reading import Reading
from gateway.model import Gpu, GpuUuid

_MIG_NAME = re.compile(r"MIG (\S+)$")
_MIB = 2**20


class Inventory(Protocol):
    """A source of GPUs. Reading never fails: what cannot be known is a note."""

    def read(self) -> Reading:
        """Look now."""


class NvmlInventory:
    """Asks the NVIDIA driver through `libnvidia-ml.so.1`, initialised for each reading: handles end with a driver."""

    def read(self) -> Reading:
        import pynvml

        try:
            with _opened(pynvml):
                return _read(pynvml)
        except pynvml.NVMLError as exc:
            return Reading("none", notes=(f"NVML: {exc}",))


class NoInventory:
    """A host whose GPUs are not for devgw, by configuration."""

    def read(self) -> Reading:
        return Reading("none", notes=("the setting gpus.inventory is 'none'",))


class FirstInventory:
    """The first source that has GPUs; the notes of those before it are kept."""

    def __init__(self, *sources: Inventory) -> None:
        self._sources = sources

    def read(self) -> Reading:
        notes: tuple[str, ...] = ()
        for source in self._sources:
            reading = source.read()
            notes += reading.notes
            if reading.gpus:
                return Reading(reading.source, reading.gpus, notes, reading.driver_version)
        return Reading("none", notes=notes)


def inventory_of(kind: Literal["auto", "nvml", "amd", "cdi", "none"], cdi_directories: tuple[Path, ...]) -> Inventory:
    """Return the inventory that the setting `gpus.inventory` names."""
    nvml, cdi = NvmlInventory(), CdiInventory(cdi_directories)
    kinds: dict[str, Inventory] = {
        "auto": FirstInventory(nvml, AmdInventory(is_expected=False), cdi),
        "nvml": nvml,
        "amd": AmdInventory(),
        "cdi": cdi,
        "none": NoInventory(),
    }
    return kinds[kind]


@contextmanager
def _opened(nvml: ModuleType) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ModuleType) -> Reading:
    """Read every GPU; one that has fallen off the bus is a note, and the others can still be leased."""
    gpus: list[Gpu] = []
    notes: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.extend(_device(nvml, index))
        except nvml.NVMLError as exc:
            notes.append(f"GPU {index}: {exc}")
    return Reading("nvml", tuple(gpus), tuple(notes), str(nvml.nvmlSystemGetDriverVersion()))


def _device(nvml: ModuleType, index: int) -> Iterator[Gpu]:
    """Yield a whole GPU, or its slices where it is in MIG mode (none of them before they are made)."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    if _is_in_mig_mode(nvml, handle):
        yield from _slices(nvml, handle, index)
    else:
        yield _gpu(nvml, handle, str(index))


def _is_in_mig_mode(nvml: ModuleType, handle: Any) -> bool:
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):  # GPUs before Ampere, drivers before R450
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _slices(nvml: ModuleType, parent: Any, index: int) -> Iterator[Gpu]:
    """Number them as nvidia-smi does: empty places in the driver's table are skipped."""
    place = 0
    for candidate in range(nvml.nvmlDeviceGetMaxMigDeviceCount(parent)):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, candidate)
        except nvml.NVMLError_NotFound:
            continue
        yield _gpu(nvml, handle, f"{index}:{place}", is_slice=True)
        place += 1


def _gpu(nvml: ModuleType, handle: Any, index: str, *, is_slice: bool = False) -> Gpu:
    name = str(nvml.nvmlDeviceGetName(handle))
    return Gpu(
        uuid=GpuUuid(nvml.nvmlDeviceGetUUID(handle)),
        name=name,
        memory_bytes=_memory_bytes(nvml, handle),
        index=index,
        mig_profile=_profile(nvml, handle, name) if is_slice else "",
    )


def _memory_bytes(nvml: ModuleType, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError_NotSupported:  # GPUs that share the host's memory, such as GB10
        return 0


def _profile(nvml: ModuleType, handle: Any, name: str) -> str:
    """Take the profile from the slice's name (`… MIG 1g.10gb`); drivers that leave it out give its parts."""
    if match := _MIG_NAME.search(name):
        return match[1].lower()
    parts = nvml.nvmlDeviceGetAttributes(handle)
    gigabytes = -(-int(parts.memorySizeMB) * _MIB // 2**30)  # rounded up, as NVIDIA's own names are
    compute, whole = int(parts.computeInstanceSliceCount), int(parts.gpuInstanceSliceCount)
    prefix = "" if compute == whole else f"{compute}c."
    return f"{prefix}{whole}g.{gigabytes}gb"
