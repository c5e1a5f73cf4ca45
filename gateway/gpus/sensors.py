"""What the driver measures of each GPU and slice just now: load, memory, power, processes, and what it is.

What can be leased is the inventory's work; this is for `devgw gpus`, `devgw top`, usage and the doctor.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, TypeVar

from gateway.gpus.slice_load import slice_handles, slice_loads
from gateway.model import GpuUuid

Value = TypeVar("Value")
_BRANDS = {
    1: "quadro", 2: "tesla", 3: "nvs", 4: "grid", 5: "geforce", 6: "titan", 7: "vapps", 8: "vpc", 9: "vcs", 10: "vws",
    11: "cloudgaming", 12: "quadrortx", 13: "nvidiartx", 14: "nvidia", 15: "geforcertx", 16: "titanrtx",
}  # fmt: skip
"""nvmlBrandType_t (nvml.h), spelled as `NVIDIA_REQUIRE_CUDA` spells brands."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a GPU; its memory is None where the driver does not tell."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One GPU, or one slice, where `parent` is its GPU. None stands for what the driver does not tell.

    A slice has no power of its own (NVML reference, "Multi Instance GPU Management"); see `slice_load` for its load.
    """

    uuid: GpuUuid
    name: str
    index: str
    parent: GpuUuid | None = None
    utilisation_percent: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    temperature_celsius: int | None = None
    processes: tuple[Process, ...] | None = None
    is_persistent: bool | None = None
    mig_mode: tuple[bool, bool] | None = None
    """Whether MIG is on now, and after the next reset."""
    capability: tuple[int, int] | None = None
    brand: str = "unknown"


@dataclass(frozen=True, slots=True)
class Sensors:
    """Everything measured at one moment. `error` says why nothing could be: NVML's own words."""

    driver: str = ""
    cuda: str = ""
    devices: tuple[Measurement, ...] = ()
    error: str = ""
    lost: tuple[str, ...] = ()

    def by_uuid(self) -> dict[GpuUuid, Measurement]:
        """Return GPUs and slices by UUID."""
        return {device.uuid: device for device in self.devices}


class Measuring(Protocol):
    """A source of measurements. Reading never fails."""

    def read(self) -> Sensors:
        """Measure now."""


class NvmlSensors:
    """Asks the NVIDIA driver, initialised for each reading as the inventory is."""

    def read(self) -> Sensors:
        import pynvml

        try:
            with _opened(pynvml):
                return _read(pynvml)
        except pynvml.NVMLError as exc:
            return Sensors(error=str(exc))


class NoSensors:
    """A host whose GPUs are not for devgw, by configuration."""

    def read(self) -> Sensors:
        return Sensors(error="the setting gpus.inventory is 'none'")


@contextmanager
def _opened(nvml: ModuleType) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ModuleType) -> Sensors:
    devices: list[Measurement] = []
    lost: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            whole = _whole(nvml, handle, index)
        except nvml.NVMLError as exc:
            lost.append(f"GPU {index}: {exc}")
            continue
        devices.append(whole)
        if whole.mig_mode is not None and whole.mig_mode[0]:
            devices.extend(_slices(nvml, handle, whole))
    cuda = int(nvml.nvmlSystemGetCudaDriverVersion_v2())  # 12080 is 12.8
    driver = str(nvml.nvmlSystemGetDriverVersion())
    return Sensors(driver, f"{cuda // 1000}.{cuda % 1000 // 10}", tuple(devices), lost=tuple(lost))


def _whole(nvml: ModuleType, handle: Any, index: int) -> Measurement:
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    load = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = _told(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    modes = _told(nvml, nvml.nvmlDeviceGetMigMode, handle)
    capability = _told(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    persistent = _told(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    return Measurement(
        uuid=GpuUuid(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        index=str(index),
        utilisation_percent=None if load is None else int(load.gpu),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        temperature_celsius=_told(
            nvml, lambda of: int(nvml.nvmlDeviceGetTemperature(of, nvml.NVML_TEMPERATURE_GPU)), handle
        ),
        processes=_processes(nvml, handle),
        is_persistent=None if persistent is None else bool(persistent),
        mig_mode=None if modes is None else (bool(modes[0]), bool(modes[1])),
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        brand=_BRANDS.get(_told(nvml, nvml.nvmlDeviceGetBrand, handle) or 0, "unknown"),
    )


def _slices(nvml: ModuleType, parent: Any, whole: Measurement) -> Iterator[Measurement]:
    handles = list(slice_handles(nvml, parent))
    for place, (handle, load) in enumerate(zip(handles, slice_loads(nvml, parent, handles), strict=True)):
        memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        yield Measurement(
            uuid=GpuUuid(nvml.nvmlDeviceGetUUID(handle)),
            name=str(nvml.nvmlDeviceGetName(handle)),
            index=f"{whole.index}:{place}",
            parent=whole.uuid,
            utilisation_percent=load,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            processes=_processes(nvml, handle),
            capability=whole.capability,
            brand=whole.brand,
        )


def _processes(nvml: ModuleType, handle: Any) -> tuple[Process, ...] | None:
    """List compute and graphics processes, each once."""
    found: dict[int, Process] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        told = _told(nvml, ask, handle)
        if told is None:
            return None
        for one in told:
            found[int(one.pid)] = Process(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory))
    return tuple(found[pid] for pid in sorted(found))


def _told(nvml: ModuleType, ask: Callable[[Any], Value], handle: Any) -> Value | None:
    """Ask one thing; None where this GPU, driver or account is not told it. A lost GPU is no such case."""
    silent = (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission)
    try:
        return ask(handle)
    except silent:
        return None
