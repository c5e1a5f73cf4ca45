"""Export the newest record to Prometheus: a textfile for a node exporter, or HTTP on 127.0.0.1."""

import time
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, start_http_server, write_to_textfile

from devgw_runner.errors import UsageError
from devgw_runner.metrics.record import Record

PREFIX = "devgw_train_"
GAUGES = {
    "loss": "mean training loss of the last interval",
    "step_seconds": "seconds per optimizer step",
    "samples_per_second": "samples per second over all processes",
    "mfu_ratio": "share of the device's peak operations used, MIG-aware",
    "data_wait_seconds": "seconds per step spent waiting for data",
    "memory_bytes": "peak device memory allocated",
    "compile_seconds": "seconds spent in warm-up and compilation",
    "recompiles": "compilations after warm-up",
    "checkpoint_age_seconds": "seconds since the last complete checkpoint",
    "step": "optimizer steps done",
    "epoch": "epochs done",
    "learning_rate": "learning rate of the first parameter group",
    "skipped_steps": "steps left out because the gradient was not finite",
    "graphs": "graphs that the compiler made in warm-up",
    "graph_breaks": "places where the compiler left the step to Python",
    "eager_shape_parts": "batches, or parts of one, that ran eager because their shape was not compiled",
}
VAL_LOSS = "val_loss"
TEXTFILE_SECONDS = 1.0
"""Between two writings of the textfile: one takes a millisecond, and no collector looks more often."""


class PrometheusSink:
    """Holds a private registry, so that a task's own metrics do not collide with it."""

    def __init__(self, how: str, textfile: Path, run: str) -> None:
        self._registry = CollectorRegistry()
        self._textfile = textfile if how == "textfile" else None
        self._run = run
        self._written_at = -TEXTFILE_SECONDS
        texts = {**GAUGES, VAL_LOSS: "loss of the last evaluation"}
        self._gauges = {
            name: Gauge(PREFIX + name, text, ["run"], registry=self._registry) for name, text in texts.items()
        }
        if how != "textfile":
            self._serve(int(how))

    def write(self, record: Record) -> None:
        """Set the gauges; a textfile is replaced atomically, now and then and at the end."""
        for name, value in _values(record).items():
            self._gauges[name].labels(run=self._run).set(value)
        now = time.monotonic()
        if self._textfile is not None and now - self._written_at >= TEXTFILE_SECONDS:
            write_to_textfile(str(self._textfile), self._registry)
            self._written_at = now

    def close(self) -> None:
        if self._textfile is None:
            self._server.shutdown()
            self._server.server_close()
            return
        with suppress(OSError):  # a full disk was reported by the sinks before
            write_to_textfile(str(self._textfile), self._registry)

    def _serve(self, port: int) -> None:
        try:
            # Loopback only: metrics name the run and are nobody else's business.
            self._server, _ = start_http_server(port, addr="127.0.0.1", registry=self._registry)
        except OSError as exc:
            reason = (exc.strerror or "refused").lower()
            raise UsageError(
                f"cannot serve metrics on 127.0.0.1:{port}: {reason}",
                "choose another --prometheus port or textfile",
            ) from exc


def _values(record: Record) -> dict[str, float]:
    if record.kind != "train":
        return {VAL_LOSS: record.loss}
    numbers = {name: getattr(record, name) for name in GAUGES if name != "mfu_ratio"}
    return numbers if record.mfu is None else {**numbers, "mfu_ratio": record.mfu}
