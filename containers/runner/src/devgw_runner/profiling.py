"""Trace a few steps with torch.profiler and write one file that Perfetto opens."""

import json
from pathlib import Path
from typing import Any

import torch

from devgw_runner.profile_summary import Summary, summarise

TRACE_NAME = "trace.json"
SUMMARY_NAME = "profile.json"
WARM_STEPS = 2


class Profiler:
    """Traces `steps` steps after two warm ones; with 0 steps it does nothing."""

    def __init__(self, steps: int, logs: Path, device: torch.device) -> None:
        self._path = logs / TRACE_NAME
        self._remaining = steps + WARM_STEPS if steps else 0
        self._steps = steps
        self._device = device
        self._profile: Any = None
        self.summary: Summary | None = None

    def step(self) -> Path | None:
        """Count one training step; return the trace's path when it has just been written."""
        if self._remaining == 0:
            return None
        self._remaining -= 1
        if self._remaining == self._steps:
            self._start()
        elif self._remaining == 0:
            return self._finish()
        return None

    def close(self) -> None:
        if self._profile is not None:
            self._finish()

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.__enter__()

    def _finish(self) -> Path:
        self._profile.__exit__(None, None, None)
        self._profile.export_chrome_trace(str(self._path))
        self.summary = summarise(self._profile.key_averages(), self._steps)
        text = json.dumps(self.summary.to_json(), indent=1)
        self._path.with_name(SUMMARY_NAME).write_text(text + "\n", encoding="utf-8")
        self._profile = None
        self._remaining = 0
        return self._path
