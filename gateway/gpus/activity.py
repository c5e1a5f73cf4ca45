"""What happens on GPUs just now, as NVML tells: how busy they are, whose processes run there, and critical errors.

Which GPUs there are is the inventory's word; a host whose driver cannot be asked has no activity to tell.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from types import ModuleType
from typing import Any, Protocol

from gateway.gpus.slice_load import slice_loads
from gateway.model import GpuUuid

# Faults of the program that ran, not of the GPU: k8s-device-plugin internal/rm/health.go
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
_WAIT_MILLISECONDS = 1000


class Activity(Protocol):
    """What a gateway asks of its GPUs beside their names."""

    def processes(self, uuids: Iterable[GpuUuid]) -> dict[GpuUuid, tuple[int, ...]]:
        """Return the pids of compute processes; a GPU without any, or that cannot be asked, is left out."""

    def utilisation(self, uuids: Iterable[GpuUuid]) -> dict[GpuUuid, int]:
        """Return percent of the last sample period; what cannot be told, as for slices before Hopper, is left out."""


class NvmlActivity:
    """Asks the driver, opened anew each time as the inventory does."""

    def processes(self, uuids: Iterable[GpuUuid]) -> dict[GpuUuid, tuple[int, ...]]:
        return {uuid: found for uuid, found in _each(uuids, _processes) if found}

    def utilisation(self, uuids: Iterable[GpuUuid]) -> dict[GpuUuid, int]:
        return dict(_each(uuids, _utilisation))


class NoActivity:
    """GPUs known from CDI specs only, or none at all."""

    def processes(self, _uuids: Iterable[GpuUuid]) -> dict[GpuUuid, tuple[int, ...]]:
        return {}

    def utilisation(self, _uuids: Iterable[GpuUuid]) -> dict[GpuUuid, int]:
        return {}


def watch_xids(on_critical: Callable[[int, int], None], stop: Event) -> None:
    """Call with (GPU index, Xid) for each critical error until told to stop; returns where NVML cannot be asked."""
    import pynvml

    with suppress(pynvml.NVMLError), _opened(pynvml):
        events = pynvml.nvmlEventSetCreate()
        try:
            indices = _register(pynvml, events)
            while indices and not stop.is_set():
                with suppress(pynvml.NVMLError_Timeout):
                    seen = pynvml.nvmlEventSetWait_v2(events, _WAIT_MILLISECONDS)
                    if seen.eventData not in APPLICATION_XIDS:
                        uuid = pynvml.nvmlDeviceGetUUID(seen.device)
                        on_critical(indices[uuid], int(seen.eventData))
        finally:
            pynvml.nvmlEventSetFree(events)


def _register(nvml: ModuleType, events: Any) -> dict[str, int]:
    """Ask for Xid events of every GPU that has them; return the index of each by its UUID."""
    indices: dict[str, int] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        with suppress(nvml.NVMLError):  # GPUs before Kepler, and one that has fallen off the bus
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
            indices[str(nvml.nvmlDeviceGetUUID(handle))] = index
    return indices


def _each(uuids: Iterable[GpuUuid], ask: Callable[[ModuleType, Any], Any]) -> Iterator[tuple[GpuUuid, Any]]:
    import pynvml

    with suppress(pynvml.NVMLError), _opened(pynvml):
        for uuid in uuids:
            with suppress(pynvml.NVMLError):
                yield uuid, ask(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))


def _processes(nvml: ModuleType, handle: Any) -> tuple[int, ...]:
    return tuple(int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle))


def _utilisation(nvml: ModuleType, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError_NotSupported:
        [load] = slice_loads(nvml, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), [handle])
        if load is None:
            raise
        return load


@contextmanager
def _opened(nvml: ModuleType) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()
