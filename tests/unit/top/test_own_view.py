"""What `devgw-top` shows: rates between two looks, graphs of the last ones, lines that fit."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from gateway.engines.interface import Load
from gateway.gpus.sensors import Measurement
from gateway.model import EnvironmentRef, GpuUuid
from gateway.top.graph import LOOKS
from gateway.top.own_look import OwnConnection, OwnEnvironment, OwnLook
from gateway.top.own_view import OwnHistory, document, picture
from tests.support.started_environment import started

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ROW = started(EnvironmentRef.parse("alice"))
GPU = Measurement(
    GpuUuid("GPU-1"), "NVIDIA H100\x1b[2J", "0", utilisation_percent=50, memory_used_bytes=40 << 30,
    memory_total_bytes=80 << 30, power_watts=300.0, temperature_celsius=60,
)  # fmt: skip


def look(
    at: float, cpu_seconds: float | None = 0.0, gpus: Sequence[Measurement] = (), sent: int = 0, error: str = ""
) -> OwnLook:
    load = None if cpu_seconds is None else Load(cpu_seconds, 1 << 29)
    row = replace(ROW, gpus=tuple(gpu.uuid for gpu in gpus))
    one = OwnEnvironment(row, load, NOON + timedelta(days=900), None, gpus)
    connections = [OwnConnection("0a", "alice", "192.0.2.7", 2, sent, 0)]
    return OwnLook("alice", NOON + timedelta(seconds=at), at, [one], connections, error)


def seen(*looks: OwnLook) -> OwnHistory:
    history = OwnHistory()
    for one in looks:
        history.add(one)
    return history


def shown(*looks: OwnLook, columns: int = 160, ascii_only: bool = False) -> str:
    return picture(looks[-1], seen(*looks), columns, ascii_only=ascii_only, is_live=True)


def test_processors_are_what_was_used_between_two_looks() -> None:
    assert "PROCESSORS" in shown(look(0))
    assert " - " in shown(look(0, 5.0))
    assert "0.75 of 1" in shown(look(0, 5.0), look(2, 6.5))


def test_one_that_started_anew_has_no_rate_until_the_next_look() -> None:
    assert seen(look(0, 50.0), look(2, 1.0)).processors == {}
    assert seen(look(0, 50.0), look(2, 1.0), look(4, 2.0)).processors == {"alice": 0.5}


def test_the_same_look_again_counts_nothing() -> None:
    first, second = look(0, 5.0), look(2, 6.0)
    history = seen(first, second, second, second)
    assert history.processors == {"alice": 0.5}
    assert len(history.graphs["memory", "alice"]) == 2


def test_bytes_are_rates_and_graphs_move_and_forget() -> None:
    looks = [look(float(at), at / 2, [GPU], sent=2048 * at) for at in range(LOOKS + 5)]
    history = seen(*looks)
    assert history.rates == {"0a": (2048.0, 0.0)}
    assert len(history.graphs["gpu", "GPU-1"]) == LOOKS
    history.add(look(99.0, 60.0))
    assert ("gpu", "GPU-1") not in history.graphs


def test_a_gpu_is_shown_with_what_the_driver_tells_and_no_escape_of_its_name() -> None:
    text = shown(look(0, 0.0, [GPU]))
    for part in ("50%", "40 GiB of 80 GiB", "300 W", "60 C", "NVIDIA H100?[2J"):
        assert part in text
    assert "\x1b" not in text
    silent = Measurement(GpuUuid("GPU-1"), "", "0")
    assert document(look(0, 0.0, [silent]), seen())["environments"][0]["gpus"][0]["utilisation_percent"] is None
    shown(look(0, 0.0, [silent]))


def test_what_nobody_counts_is_a_dash_and_why_is_said() -> None:
    text = shown(look(0, None, error="the engine is away"), look(2, None, error="the engine is away"))
    assert "not measured: the engine is away" in text


@pytest.mark.parametrize("columns", [1, 20, 79, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    text = shown(look(0, 0.0, [GPU]), look(2, 1.0, [GPU]), columns=columns)
    assert max(cell_len(line) for line in text.splitlines()) <= max(columns, len("q or Ctrl-C ends it"))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert shown(look(0, 0.0, [GPU]), look(2, 1.0, [GPU]), ascii_only=True).isascii()


def test_the_document_is_what_is_shown() -> None:
    one, two = look(0, 0.0, [GPU]), look(2, 1.0, [GPU])
    told = json.loads(json.dumps(document(two, seen(one, two))))
    [environment] = told["environments"]
    assert (environment["handle"], environment["processors"], environment["memory_used_bytes"]) == (
        "alice",
        0.5,
        1 << 29,
    )
    assert environment["gpus"][0]["memory_used_bytes"] == 40 << 30
    assert told["connections"][0]["address"] == "192.0.2.7"
