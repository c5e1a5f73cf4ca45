"""What is written beside a wrapped script: GPU state every few seconds, and a summary at its end."""

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from devgw_runner.metrics.gpu import NvmlUnavailableError, read_gpus
from devgw_runner.metrics.state import GpuState

INTERVAL_SECONDS = 5.0
GPU_JSONL = "gpu.jsonl"
GPU_PROM = "gpu.prom"
SUMMARY = "summary.json"
GAUGES = {
    "memory_used_bytes": "GPU memory in use",
    "utilisation_percent": "share of time that a kernel ran",
    "temperature_celsius": "GPU temperature",
    "power_watts": "GPU power",
}


class GpuSidecar:
    """Reads NVML in a thread while the block runs; without a driver it does nothing."""

    def __init__(self, logs: Path, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._logs = logs
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gpu-sidecar", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            try:
                gpus = read_gpus()
                if not gpus:
                    return
                write_gpu_state(gpus, self._logs)
            except (NvmlUnavailableError, OSError):
                return
            if self._stop.wait(self._interval):
                return


def write_gpu_state(gpus: list[GpuState], logs: Path) -> None:
    """Append to gpu.jsonl and replace gpu.prom."""
    with (logs / GPU_JSONL).open("a", encoding="utf-8") as stream:
        for gpu in gpus:
            stream.write(json.dumps({"time": time.time(), **gpu.to_json()}) + "\n")
    registry = CollectorRegistry()
    for name, text in GAUGES.items():
        gauge = Gauge(f"devgw_gpu_{name}", text, ["uuid"], registry=registry)
        for gpu in gpus:
            value = getattr(gpu, name)
            if value is not None:
                gauge.labels(uuid=gpu.uuid).set(value)
    write_to_textfile(str(logs / GPU_PROM), registry)


def write_summary(logs: Path, **summary: Any) -> None:
    """Write summary.json; a full volume must not change the script's exit code."""
    try:
        (logs / SUMMARY).write_text(json.dumps({"version": 1, **summary}, indent=1) + "\n", encoding="utf-8")
    except OSError:
        return
