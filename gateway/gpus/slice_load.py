"""How busy MIG slices are: NVML's GPU performance monitoring (GPM), which cards from Hopper on have.

Utilisation proper is "not supported" on a slice (NVML reference). GPM compares two samples of a GPU instance: the share
of the time between them in which something computed there. Slices that share a GPU instance share its load.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

BETWEEN_SECONDS = 0.1


def slice_handles(nvml: ModuleType, parent: Any) -> Iterator[Any]:
    """Yield NVML's handle of each slice of a card."""
    for candidate in range(nvml.nvmlDeviceGetMaxMigDeviceCount(parent)):
        with suppress(nvml.NVMLError_NotFound):
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, candidate)


def slice_loads(nvml: ModuleType, parent: Any, slices: Sequence[Any]) -> list[int | None]:
    """Return percent for each slice of a card; None where card, driver or account is not told it.

    Raises: NVMLError, for a card that was lost.
    """
    untold = (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission)
    try:
        if not slices or not nvml.nvmlGpmQueryDeviceSupport(parent).isSupportedDevice:
            return [None] * len(slices)
        instances = [int(nvml.nvmlDeviceGetGpuInstanceId(one)) for one in slices]
        with ExitStack() as samples:
            wanted = dict.fromkeys(instances)
            before = {one: _sample(nvml, parent, one, samples) for one in wanted}
            time.sleep(BETWEEN_SECONDS)
            loads = {one: _load(nvml, before[one], _sample(nvml, parent, one, samples)) for one in wanted}
    except untold:
        return [None] * len(slices)
    return [loads[one] for one in instances]


def _sample(nvml: ModuleType, parent: Any, instance: int, samples: ExitStack) -> Any:
    sample = nvml.nvmlGpmSampleAlloc()
    samples.callback(nvml.nvmlGpmSampleFree, sample)
    return nvml.nvmlGpmMigSampleGet(parent, instance, sample)


def _load(nvml: ModuleType, before: Any, after: Any) -> int | None:
    asked = nvml.c_nvmlGpmMetricsGet_t()
    asked.version = nvml.NVML_GPM_METRICS_GET_VERSION
    asked.numMetrics = 1
    asked.sample1, asked.sample2 = before, after
    asked.metrics[0].metricId = nvml.NVML_GPM_METRIC_GRAPHICS_UTIL
    told = nvml.nvmlGpmMetricsGet(asked).metrics[0]
    if told.nvmlReturn != nvml.NVML_SUCCESS or not 0 <= told.value <= 100:  # it may be no number
        return None
    return round(float(told.value))
