"""Write records to files: JSONL, CSV, TensorBoard. One sink each, all with the same two methods."""

import csv
import json
import os
from pathlib import Path
from typing import Any, Protocol, TextIO

from devgw_runner.errors import UsageError
from devgw_runner.metrics.record import Record


class Sink(Protocol):
    """Takes records until it is closed."""

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...


class JsonlSink:
    """One JSON object per line; a resumed run appends."""

    def __init__(self, path: Path) -> None:
        self._stream = _open_for_lines(path)

    def write(self, record: Record) -> None:
        self._stream.write(json.dumps(record.to_json()) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class CsvSink:
    """One row per record. The columns are those of the first record; a resumed run keeps the file's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: TextIO | None = None
        self._writer: csv.DictWriter[str] | None = None

    def write(self, record: Record) -> None:
        row = record.to_json()
        if self._writer is None:
            self._open(list(row))
        assert self._writer is not None and self._stream is not None  # noqa: PT018, S101 - narrows two types at once
        self._writer.writerow(row)
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _open(self, columns: list[str]) -> None:
        existing = self._path.read_text(encoding="utf-8").splitlines()[:1] if self._path.exists() else []
        self._stream = _open_for_lines(self._path)
        names = existing[0].split(",") if existing else columns
        self._writer = csv.DictWriter(self._stream, names, extrasaction="ignore", restval="")
        if not existing:
            self._writer.writeheader()


def _open_for_lines(path: Path) -> TextIO:
    """Open a file to append whole lines to; a line that a full disk cut short gets its end first."""
    stream = path.open("a+", encoding="utf-8", newline="")
    if stream.tell():
        with path.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read(1) != b"\n":
                stream.write("\n")
    return stream


class TensorBoardSink:
    """Scalars under `train/` and `val/`."""

    def __init__(self, directory: Path) -> None:
        self._writer = open_summary_writer(directory)

    def write(self, record: Record) -> None:
        scalars = {"loss": record.loss, **record.metrics}
        if record.kind == "train":
            scalars |= {
                "learning_rate": record.learning_rate,
                "samples_per_second": record.samples_per_second,
                "step_seconds": record.step_seconds,
            }
        for name, value in scalars.items():
            self._writer.add_scalar(f"{record.kind}/{name}", value, record.step)

    def close(self) -> None:
        self._writer.close()


def open_summary_writer(directory: Path) -> Any:
    """Open a TensorBoard event file.

    Raises:
        UsageError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise UsageError("tensorboard is not installed", "pip install 'devgw-runner[tensorboard]'") from exc
    return SummaryWriter(str(directory))
