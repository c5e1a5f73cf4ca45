"""What `devgw top` shows on a terminal: a graph of load and memory for each GPU, who is connected, who waits."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.cli.quantities import size_text
from gateway.top.graph import LOOKS, graph

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

ROWS_MAX = 20
"""Connections that are shown; the busiest come first."""
_GPU_HEADINGS = ("INDEX", "HOLDER", "LOAD", "", "MEMORY", "", "POWER", "TEMP", "NAME")
_CONNECTION_HEADINGS = ("USER", "ENVIRONMENT", "ADDRESS", "CHANNELS", "TO THE USER", "FROM THE USER")


@dataclass(frozen=True, slots=True)
class Connection:
    """One live connection, with its byte counts so far."""

    id: str
    user: str
    environment: str
    address: str
    channels: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """What is there at one moment. `at` counts seconds; `gpus` are the documents of `devgw top -o json`."""

    at: float
    gpus: Sequence[dict[str, Any]]
    connections: Sequence[Connection]
    waiting: Sequence[str]
    error: str = ""
    disks: Sequence[str] = ()


@dataclass(slots=True)
class History:
    """The looks before this one, as far as graphs and rates need them."""

    load: dict[str, deque[float | None]] = field(default_factory=dict)
    memory: dict[str, deque[float | None]] = field(default_factory=dict)
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    _last: Look | None = None

    def add(self, look: Look) -> None:
        """Take one more look; what is not there any more is forgotten."""
        for kept, share in ((self.load, _load_share), (self.memory, _memory_share)):
            for gpu in look.gpus:
                kept.setdefault(gpu["uuid"], deque(maxlen=LOOKS)).append(share(gpu))
            for gone in kept.keys() - {gpu["uuid"] for gpu in look.gpus}:
                del kept[gone]
        before = {one.id: one for one in self._last.connections} if self._last else {}
        seconds = look.at - self._last.at if self._last else 0.0
        self.rates = {
            one.id: (
                (one.sent_bytes - before[one.id].sent_bytes) / seconds,
                (one.received_bytes - before[one.id].received_bytes) / seconds,
            )
            for one in look.connections
            if one.id in before and seconds > 0
        }
        self._last = look


def view(look: Look, history: History, *, ascii_only: bool = False) -> "Group":
    """Return what a terminal shows of a look."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [_gpu_table(look, history, ascii_only=ascii_only), Text("")]
    if look.error:
        parts.insert(1, Text(f"NVML: {look.error}"))
    shown = sorted(look.connections, key=lambda one: sum(history.rates.get(one.id, (0.0, 0.0))), reverse=True)
    parts.append(_connection_table(shown[:ROWS_MAX], history))
    if len(shown) > ROWS_MAX:
        parts.append(Text(f"and {len(shown) - ROWS_MAX} more connections: devgw sessions list"))
    waiting = ", ".join(look.waiting) or "nobody"
    parts += [Text(""), Text(f"waiting for a GPU: {waiting}"), *map(Text, look.disks)]
    parts.append(Text("Ctrl-C ends it", style="dim"))
    return Group(*parts)


def _gpu_table(look: Look, history: History, *, ascii_only: bool) -> "Table":
    from gateway.cli.gpus import load_cells

    rows = []
    for gpu in look.gpus:
        load, memory, power = load_cells(gpu)
        temperature = gpu["temperature_celsius"]
        rows.append(
            (
                gpu["index"],
                gpu["holder"] or "free",
                load,
                graph(history.load[gpu["uuid"]], ascii_only=ascii_only),
                memory,
                graph(history.memory[gpu["uuid"]], ascii_only=ascii_only),
                power,
                "-" if temperature is None else f"{temperature}°C",
                gpu["name"],
            )
        )
    return _table(_GPU_HEADINGS, rows)


def _connection_table(connections: Sequence[Connection], history: History) -> "Table":
    rows = []
    for one in connections:
        rate = history.rates.get(one.id)
        sent, received = (f"{size_text(int(each))}/s" for each in rate) if rate else ("-", "-")
        rows.append((one.user, one.environment, one.address, str(one.channels), sent, received))
    return _table(_CONNECTION_HEADINGS, rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*(Text("".join(c if c.isprintable() else "?" for c in cell)) for cell in row))
    return table


def _load_share(gpu: dict[str, Any]) -> float | None:
    load = gpu["utilisation_percent"]
    return None if load is None else load / 100


def _memory_share(gpu: dict[str, Any]) -> float | None:
    used, total = gpu["memory_used_bytes"], gpu["memory_total_bytes"]
    return None if used is None or not total else used / total
