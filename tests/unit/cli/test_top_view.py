"""The live view of `devgw top`: graphs of the last looks, rates between two, names that cannot draw."""

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.top_view import ROWS_MAX, Connection, History, Look, view
from gateway.top.graph import LOOKS, graph

GIB = 2**30


def gpu(
    uuid: str = "GPU-1", load: int | None = 50, used: int | None = 40 * GIB, holder: str = "alice"
) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "index": "0",
        "name": "H100",
        "holder": holder,
        "utilisation_percent": load,
        "memory_used_bytes": used,
        "memory_total_bytes": None if used is None else 80 * GIB,
        "power_watts": 300.0,
        "temperature_celsius": 60,
        "processes": 1,
    }


def connection(id_: str, sent: int = 0, received: int = 0, user: str = "alice") -> Connection:
    return Connection(id_, user, user, "192.0.2.7", 2, sent, received)


def shown(*looks: Look, ascii_only: bool = False) -> str:
    history = History()
    for look in looks:
        history.add(look)
    out = io.StringIO()
    Console(file=out, width=160).print(view(looks[-1], history, ascii_only=ascii_only))
    return out.getvalue()


@pytest.mark.parametrize(
    ("shares", "drawn"),
    [([0.0, 0.5, 1.0], "▁▅█"), ([None, 0.12, 1.7], " ▁█"), ([-0.1], "▁"), ([], "")],
    ids=["low to high", "a gap, and more than all", "less than nothing", "nothing yet"],
)
def test_a_graph_shows_shares_as_heights(shares: list[float | None], drawn: str) -> None:
    assert graph(shares) == drawn


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert graph([0.0, 0.5, 1.0], ascii_only=True) == "_=#"


def test_the_graph_moves_and_forgets() -> None:
    looks = [Look(float(at), [gpu(load=at % 100)], (), ()) for at in range(LOOKS + 5)]
    history = History()
    for look in looks:
        history.add(look)
    assert list(history.load["GPU-1"]) == [at % 100 / 100 for at in range(5, LOOKS + 5)]
    history.add(Look(99.0, [], (), ()))
    assert history.load == {}
    assert history.memory == {}


def test_what_the_driver_does_not_tell_is_a_gap() -> None:
    text = shown(Look(0.0, [gpu(load=None, used=None)], (), ()))
    assert "▁" not in text
    assert "alice" in text


def test_rates_are_between_two_looks_and_the_busiest_comes_first() -> None:
    text = shown(
        Look(0.0, [], (connection("a"), connection("b", user="bob")), ()),
        Look(2.0, [], (connection("a", 2048), connection("b", 4 * 2**20, user="bob"), connection("c")), ()),
    )
    lines = [line.split() for line in text.splitlines() if "192.0.2.7" in line]
    assert [line[0] for line in lines] == ["bob", "alice", "alice"]
    assert [line[-2] for line in lines] == ["2MiB/s", "1KiB/s", "-"]


def test_a_house_full_of_connections_keeps_the_screen() -> None:
    many = tuple(connection(f"{number:04}") for number in range(ROWS_MAX + 7))
    text = shown(Look(0.0, [gpu()], many, ("bob (1)",)))
    assert text.count("192.0.2.7") == ROWS_MAX
    assert "and 7 more connections" in text
    assert "waiting for a GPU: bob (1)" in text


def test_a_name_cannot_drive_the_terminal() -> None:
    text = shown(Look(0.0, [gpu(holder="a\x1b[31mb[bold]c")], (), ()))
    assert "\x1b" not in text
    assert "a?[31mb[bold]c" in text
