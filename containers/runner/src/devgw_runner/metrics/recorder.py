"""Hand each record to every sink that the settings ask for. Only the main process records."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from devgw_runner.config import TrainConfig
from devgw_runner.errors import storage_error
from devgw_runner.metrics.loggers import Guarded, TrackedRun, logger_names, open_trackers, read_secrets, shown_settings
from devgw_runner.metrics.progress import Progress
from devgw_runner.metrics.prometheus import PrometheusSink
from devgw_runner.metrics.record import Record
from devgw_runner.metrics.sinks import CsvSink, JsonlSink, Sink, TensorBoardSink

METRICS_JSONL = "metrics.jsonl"
METRICS_CSV = "metrics.csv"
METRICS_PROM = "metrics.prom"
EVENTS_JSONL = "events.jsonl"


class Recorder:
    """Writes metrics and events, and shows progress. On other processes than the main one it is silent."""

    def __init__(self, config: TrainConfig, logs: Path, progress: Progress, run: str, *, is_main: bool) -> None:
        self._progress = progress
        self._logs = logs
        self._is_main = is_main
        self._sinks: list[Sink] = _open_sinks(config, logs, run) if is_main else []
        if is_main:
            self._sinks += self._open_trackers(config, run)

    def add_loggers(self, loggers: Iterable[Sink]) -> None:
        """Send the records to loggers of the task's own too; one that fails is said once and left."""
        if self._is_main:
            self._sinks += [Guarded(type(logger).__name__, logger, self._say_lost) for logger in loggers]

    def _open_trackers(self, config: TrainConfig, run: str) -> list[Guarded]:
        names = logger_names(config.logger)
        if config.logger_secrets is not None:
            read_secrets(config.logger_secrets)
        if not names:
            return []
        settings = shown_settings(config.model_dump(mode="json", exclude={"logger_secrets"}))
        described = TrackedRun(run, config.logger_project, self._logs, settings, config.logger_uri)
        return open_trackers(names, described, self._say_lost)

    def _say_lost(self, text: str) -> None:
        self.event("logger-lost", text)

    def record(self, record: Record) -> None:
        """Write one record everywhere.

        Raises:
            StorageError: the logs volume is full or gone.
        """
        if not self._is_main:
            return
        try:
            for sink in self._sinks:
                sink.write(record)
        except OSError as exc:
            self._abandon()
            raise storage_error(exc, "writing metrics") from exc
        self._progress.show(record)

    def event(self, event_name: str, text: str, **details: Any) -> None:
        """Write one line of events.jsonl and say it."""
        if not self._is_main:
            return
        entry = {"time": time.time(), "event": event_name, "text": text, **details}
        try:
            with (self._logs / EVENTS_JSONL).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as exc:
            self._abandon()
            raise storage_error(exc, "writing events") from exc
        self._progress.say(text)

    def close(self) -> None:
        """Write out what is still on its way.

        Raises:
            StorageError: the logs volume is full or gone.
        """
        self._progress.close()
        failures = self._abandon()
        if failures:
            raise storage_error(failures[0], "writing metrics") from failures[0]

    def _abandon(self) -> list[OSError]:
        """Close every sink, also after one has failed: what it still holds would fail again at each try."""
        failures = []
        sinks, self._sinks = self._sinks, []
        for sink in sinks:
            try:
                sink.close()
            except OSError as exc:
                failures.append(exc)
        return failures


def _open_sinks(config: TrainConfig, logs: Path, run: str) -> list[Sink]:
    sinks: list[Sink] = [JsonlSink(logs / METRICS_JSONL)]
    if config.csv:
        sinks.append(CsvSink(logs / METRICS_CSV))
    if config.tensorboard:
        sinks.append(TensorBoardSink(logs / "tensorboard"))
    if config.prometheus != "off":
        sinks.append(PrometheusSink(config.prometheus, logs / METRICS_PROM, run))
    return sinks
