"""Sizes, CPUs and ages as flags say and tables show them."""

from math import inf

import pytest

from gateway.cli import quantities
from gateway.cli.quantities import age_text, limits_from, parse_memory, require_cpus, size_text
from gateway.config import EnvironmentSettings
from gateway.errors import UsageError

_GIB = 2**30


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (8 * _GIB, "8GiB"), (int(1.5 * _GIB), "1.5GiB"), (2**40, "1TiB")],
)
def test_size_is_written_as_people_write_it(size_bytes: int, text: str) -> None:
    """The largest unit that leaves at least 1."""
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(-3.0, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (864000, "10d")])
def test_age_is_written_in_one_unit(seconds: float, text: str) -> None:
    """Rounded down; a clock that went back is no negative age."""
    assert age_text(seconds) == text


@pytest.mark.parametrize("text", ["", "lots", "-1", "16 giga", "1e9", "0", "1", "63MiB"])
def test_memory_that_is_no_size_or_too_small_is_refused(text: str) -> None:
    """Exit 2, before anything is made."""
    with pytest.raises(UsageError) as refusal:
        parse_memory(text)
    assert refusal.value.code == "memory.bad"


@pytest.mark.parametrize("cpus", [0.0, -1.0, float("nan"), float("inf"), 0.001])
def test_cpus_that_are_no_number_of_cpus_are_refused(cpus: float) -> None:
    """Docker's smallest step is a hundredth."""
    with pytest.raises(UsageError) as refusal:
        require_cpus(cpus)
    assert refusal.value.code == "cpus.bad"


def test_limits_fill_in_what_was_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs are lowered to what the host has, /dev/shm gets half of the memory."""
    monkeypatch.setattr(quantities, "host_cpus", lambda: 2.0)
    limits = limits_from(EnvironmentSettings(), memory="4GiB", cpus=None)
    assert (limits.memory_bytes, limits.shm_bytes, limits.cpus, limits.pids) == (4 * _GIB, 2 * _GIB, 2.0, 4096)


def test_processors_of_other_machines_are_not_lowered_to_those_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small gateway may stand before large nodes."""
    monkeypatch.setattr(quantities, "host_cpus", lambda: 2.0)
    assert limits_from(EnvironmentSettings(), memory=None, cpus=64.0, most_cpus=inf).cpus == 64.0
