"""Show a person how far the run is: one live line on a terminal, one line per interval elsewhere.

A lost connection shows as an output that cannot be written; that is reported once, not raised.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from devgw_runner.errors import DISK_FULL_ERRNOS, storage_error
from devgw_runner.metrics.record import Record


class Progress:
    """Prints to `stream`. `on_lost` is called once when nobody can read any more."""

    def __init__(
        self,
        total_steps: int,
        interval_seconds: float,
        on_lost: Callable[[], None],
        stream: TextIO | None = None,
    ) -> None:
        self._total = total_steps
        self._interval = interval_seconds
        self._on_lost = on_lost
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._lost = False
        self._last_line = float("-inf")
        self._open_line = False
        self._started: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """Print one line of its own."""
        self._end_live_line()
        self._write(text + "\n")

    def show(self, record: Record) -> None:
        """Print an evaluation always, a training record when it is time."""
        if record.kind == "val":
            self.say(f"{'val':<5} step {record.step}  {_numbers(record)}")
            return
        text = self._describe(record)
        now = time.monotonic()
        if self._live:
            self._write(f"\r\x1b[2K{text}")
            self._open_line = True
        elif now - self._last_line >= self._interval or record.step >= self._total:
            self._last_line = now
            self._write(text + "\n")

    def close(self) -> None:
        self._end_live_line()

    def _describe(self, record: Record) -> str:
        share = 100 * record.step / max(1, self._total)
        mfu = f"  mfu {record.mfu:.1%}" if record.mfu is not None else ""
        return (
            f"{'train':<5} step {record.step}/{self._total} ({share:.0f} %)  {_numbers(record)}  "
            f"{record.samples_per_second:.0f} samples/s{mfu}  eta {self._eta(record)}"
        )

    def _eta(self, record: Record) -> str:
        if self._started is None:
            self._started = (time.monotonic(), record.step)
            per_step = record.step_seconds
        else:
            began, first = self._started
            per_step = (time.monotonic() - began) / max(1, record.step - first)
        return format_seconds(per_step * max(0, self._total - record.step))

    def _end_live_line(self) -> None:
        if self._open_line:
            self._open_line = False
            self._write("\n")

    def _write(self, text: str) -> None:
        if self._lost:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as exc:
            # EPIPE or EIO: sshd closed its end. ValueError: the stream object itself is closed.
            self._lost = True
            if isinstance(exc, OSError) and exc.errno in DISK_FULL_ERRNOS:
                self._drop_output()
                raise storage_error(exc, "writing the output") from exc
            self._on_lost()

    def _drop_output(self) -> None:
        """Let go of what could not be written: Python's exit would try again, and give its own code."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _numbers(record: Record) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in {"loss": record.loss, **record.metrics}.items())


def format_seconds(seconds: float) -> str:
    """Return a duration as `1h02m`, `3m20s` or `12s`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{left:02d}s" if minutes else f"{left}s"
