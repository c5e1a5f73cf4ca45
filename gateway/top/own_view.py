"""What `devgw-top` shows of a user's own: graphs of the last looks, rates between two; as lines, or as a document."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gateway.top.graph import LOOKS, graph
from gateway.top.own_look import OwnEnvironment, OwnLook

PLAIN_COLUMNS = 120
"""Where there is no terminal."""
_ENVIRONMENT_HEADINGS = ("ENVIRONMENT", "STATE", "PROCESSORS", "", "MEMORY", "", "STOPS")
_GPU_HEADINGS = ("GPU", "ENVIRONMENT", "LOAD", "", "MEMORY", "", "POWER", "TEMP", "NAME")
_CONNECTION_HEADINGS = ("CONNECTION", "ENVIRONMENT", "FROM", "CHANNELS", "TO YOU", "FROM YOU")
_UNITS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


@dataclass(slots=True)
class OwnHistory:
    """The looks before this one, as far as graphs and rates need them."""

    graphs: dict[tuple[str, str], deque[float | None]] = field(default_factory=dict)
    processors: dict[str, float] = field(default_factory=dict)
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    last: OwnLook | None = None

    def add(self, look: OwnLook) -> None:
        """Take one more look; the same one again, and what is not there any more, counts nothing."""
        before, self.last = self.last, look
        if before is look:
            return
        seconds = look.clock - before.clock if before else 0.0
        self.processors, self.rates = {}, {}
        if before and seconds > 0:
            self._count_processors(before, look, seconds)
            known = {one.id: one for one in before.connections}
            self.rates = {
                one.id: (
                    (one.sent_bytes - known[one.id].sent_bytes) / seconds,
                    (one.received_bytes - known[one.id].received_bytes) / seconds,
                )
                for one in look.connections
                if one.id in known
            }
        shares = {key: share for one in look.environments for key, share in self._shares(one)}
        for key, share in shares.items():
            self.graphs.setdefault(key, deque(maxlen=LOOKS)).append(share)
        for gone in self.graphs.keys() - shares.keys():
            del self.graphs[gone]

    def graph(self, kind: str, what: str, *, ascii_only: bool) -> str:
        """Draw what is known of one number."""
        return graph(self.graphs.get((kind, what), ()), ascii_only=ascii_only)

    def _count_processors(self, before: OwnLook, look: OwnLook, seconds: float) -> None:
        known = {one.handle: one.load for one in before.environments if one.load}
        for one in look.environments:
            if one.load and (earlier := known.get(one.handle)) and one.load.cpu_seconds >= earlier.cpu_seconds:
                self.processors[one.handle] = (one.load.cpu_seconds - earlier.cpu_seconds) / seconds

    def _shares(self, one: OwnEnvironment) -> list[tuple[tuple[str, str], float | None]]:
        used, limits = self.processors.get(one.handle), one.row.limits
        shares: list[tuple[tuple[str, str], float | None]] = [
            (("cpu", one.handle), None if used is None else used / limits.cpus),
            (("memory", one.handle), one.load.memory_bytes / limits.memory_bytes if one.load else None),
        ]
        for gpu in one.gpus:
            load, held, total = gpu.utilisation_percent, gpu.memory_used_bytes, gpu.memory_total_bytes
            shares.append((("gpu", gpu.uuid), None if load is None else load / 100))
            shares.append((("gpu memory", gpu.uuid), None if held is None or not total else held / total))
        return shares


def picture(look: OwnLook, history: OwnHistory, columns: int, *, ascii_only: bool, is_live: bool) -> str:
    """Return the lines that show a look."""
    lines = [_cut(f"{look.user}: {look.at:%Y-%m-%d %H:%M:%S} UTC", columns), ""]
    rows = [_environment_row(one, history, ascii_only=ascii_only) for one in look.environments]
    lines += table(_ENVIRONMENT_HEADINGS, rows, columns) if rows else ["you have no environment"]
    gpus = [row for one in look.environments for row in _gpu_rows(one, history, ascii_only=ascii_only)]
    if gpus:
        lines += ["", *table(_GPU_HEADINGS, gpus, columns)]
    if look.connections:
        lines += [
            "",
            *table(_CONNECTION_HEADINGS, [_connection_row(one, history) for one in look.connections], columns),
        ]
    if look.error:
        lines += ["", _cut(f"not measured: {look.error}", columns)]
    if is_live:
        lines += ["", "q or Ctrl-C ends it"]
    return "\n".join(lines)


def document(look: OwnLook, history: OwnHistory) -> dict[str, Any]:
    """Return a look as JSON shows it; null is what nobody told."""
    return {
        "user": look.user,
        "at": look.at.isoformat(),
        "environments": [
            {
                "handle": one.handle,
                "state": one.row.state.value,
                "processors": _rounded(history.processors.get(one.handle)),
                "cpus": one.row.limits.cpus,
                "memory_used_bytes": one.load.memory_bytes if one.load else None,
                "memory_bytes": one.row.limits.memory_bytes,
                "stops_at": one.stops_at.isoformat() if one.stops_at else None,
                "queue_position": one.place[0] if one.place else None,
                "gpus": [
                    {
                        "uuid": gpu.uuid,
                        "utilisation_percent": gpu.utilisation_percent,
                        "memory_used_bytes": gpu.memory_used_bytes,
                        "memory_total_bytes": gpu.memory_total_bytes,
                        "power_watts": gpu.power_watts,
                        "temperature_celsius": gpu.temperature_celsius,
                    }
                    for gpu in one.gpus
                ],
            }
            for one in look.environments
        ],
        "connections": [
            {
                "id": one.id,
                "environment": one.environment,
                "address": one.address,
                "channels": one.channels,
                "sent_bytes": one.sent_bytes,
                "received_bytes": one.received_bytes,
            }
            for one in look.connections
        ],
        "error": look.error or None,
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> list[str]:
    """Return lines of cells below their headings, cut at the terminal's edge."""
    from rich.cells import cell_len

    shown = [headings, *([_printable(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[place]) for row in shown) for place in range(len(headings))]
    return [
        _cut("  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)), columns)
        for row in shown
    ]


def _environment_row(one: OwnEnvironment, history: OwnHistory, *, ascii_only: bool) -> tuple[str, ...]:
    used, limits = history.processors.get(one.handle), one.row.limits
    state = one.row.state.value
    if one.place:
        state += f", place {one.place[0]} of {one.place[1]} in the queue"
    return (
        one.handle,
        state,
        "-" if used is None else f"{used:.2f} of {limits.cpus:g}",
        history.graph("cpu", one.handle, ascii_only=ascii_only),
        f"{size_text(one.load.memory_bytes)} of {size_text(limits.memory_bytes)}" if one.load else "-",
        history.graph("memory", one.handle, ascii_only=ascii_only),
        f"in {_span_text((one.stops_at - datetime.now(UTC)).total_seconds())}" if one.stops_at else "-",
    )


def _gpu_rows(one: OwnEnvironment, history: OwnHistory, *, ascii_only: bool) -> list[tuple[str, ...]]:
    measured = {gpu.uuid: gpu for gpu in one.gpus}
    rows: list[tuple[str, ...]] = []
    for uuid in one.row.gpus:
        gpu = measured.get(uuid)
        if gpu is None:
            rows.append((uuid, one.handle, "-", "", "-", "", "-", "-", "not measured"))
            continue
        sizes = [size_text(size) for size in (gpu.memory_used_bytes, gpu.memory_total_bytes) if size is not None]
        rows.append(
            (
                gpu.index,
                one.handle,
                "-" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent}%",
                history.graph("gpu", uuid, ascii_only=ascii_only),
                " of ".join(sizes) or "-",
                history.graph("gpu memory", uuid, ascii_only=ascii_only),
                "-" if gpu.power_watts is None else f"{gpu.power_watts:.0f} W",
                "-" if gpu.temperature_celsius is None else f"{gpu.temperature_celsius} C",
                gpu.name,
            )
        )
    return rows


def _connection_row(one: Any, history: OwnHistory) -> tuple[str, ...]:
    rate = history.rates.get(one.id)
    sent, received = (f"{size_text(int(each))}/s" for each in rate) if rate else ("-", "-")
    return (one.id, one.environment, one.address, str(one.channels), sent, received)


def size_text(size: int) -> str:
    """Write bytes with three digits."""
    for unit, one in _UNITS:
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size} B"


def _span_text(seconds: float) -> str:
    for unit, one in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= one:
            return f"{seconds / one:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _cut(line: str, columns: int) -> str:
    from rich.cells import set_cell_size

    line = line.rstrip()
    return set_cell_size(line, columns).rstrip() if len(line) * 2 > columns else line


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
