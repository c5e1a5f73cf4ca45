"""Measurements, asked through nvidia-ml-py with the stand-in for the driver's library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml_standin.library import build, run_python

Read = Callable[..., dict[str, Any]]
READ = """
import json
from dataclasses import asdict
from gateway.gpus.sensors import NvmlSensors
print(json.dumps(asdict(NvmlSensors().read())))
"""
GPU, SECOND, SLICE, OTHER_SLICE = (
    f"{kind}-1111-4222-8333-444444444444" for kind in ("GPU-0", "GPU-1", "MIG-0", "MIG-1")
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the stand-in, built once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def read(library: Path, tmp_path: Path) -> Read:
    """Return a function that measures a host described by the stand-in's lines."""

    def reading(*lines: str) -> dict[str, Any]:
        facts = tmp_path / "facts"
        facts.write_text("\n".join(lines) + "\n")
        return json.loads(run_python(READ, library, facts))

    return reading


def test_a_busy_gpu_is_measured(read: Read) -> None:
    """Load, memory, power, temperature, processes, and what kind of card it is."""
    found = read(
        "driver 570.124.06", "cuda 12080", f"gpu {GPU} 81559 0 NVIDIA H100 80GB HBM3",
        f"load {GPU} 87 40960 311400 64", f"kind {GPU} 9 0 14 1",
        f"process {GPU} 4711 40000", f"process {GPU} 12 96",
    )  # fmt: skip
    assert (found["driver"], found["cuda"], found["error"]) == ("570.124.06", "12.8", "")
    (device,) = found["devices"]
    assert device == {
        "uuid": GPU, "name": "NVIDIA H100 80GB HBM3", "index": "0", "parent": None, "utilisation_percent": 87,
        "memory_used_bytes": 40960 * 2**20, "memory_total_bytes": 81559 * 2**20, "power_watts": 311.4,
        "temperature_celsius": 64, "is_persistent": True, "mig_mode": [False, False], "capability": [9, 0],
        "brand": "nvidia",
        "processes": [{"pid": 12, "memory_bytes": 96 * 2**20}, {"pid": 4711, "memory_bytes": 40000 * 2**20}],
    }  # fmt: skip


def test_what_a_card_does_not_tell_is_none_and_never_zero(read: Read) -> None:
    """A card in MIG mode tells no load of its own; an old one knows no MIG."""
    (device,) = read("cuda 12080", f"gpu {GPU} 15360 -1 Tesla T4")["devices"]
    untold = ("utilisation_percent", "power_watts", "temperature_celsius", "is_persistent", "mig_mode", "capability")
    assert [device[name] for name in untold] == [None] * 6
    assert device["brand"] == "unknown"


def test_slices_stand_behind_their_gpu(read: Read) -> None:
    """Each with its own memory and processes, and with its card's kind."""
    found = read(
        f"gpu {GPU} 81559 1 NVIDIA H100", f"slice 0 3 {SLICE} 9984 1 1 NVIDIA H100 MIG 1g.10gb",
        f"kind {GPU} 9 0 14 1", f"process {SLICE} 4711 100", f"load {SLICE} 0 120 0 0",
    )  # fmt: skip
    whole, piece = found["devices"]
    assert (whole["uuid"], whole["mig_mode"]) == (GPU, [True, True])
    assert (piece["uuid"], piece["parent"], piece["index"], piece["capability"]) == (SLICE, GPU, "0:0", [9, 0])
    assert piece["processes"] == [{"pid": 4711, "memory_bytes": 100 * 2**20}]
    assert (piece["memory_used_bytes"], piece["utilisation_percent"]) == (120 * 2**20, None)


TWO_SLICES = (
    f"gpu {GPU} 81559 1 NVIDIA H100", f"slice 0 0 {SLICE} 9984 1 1 NVIDIA H100 MIG 1g.10gb",
    f"slice 0 3 {OTHER_SLICE} 9984 1 1 NVIDIA H100 MIG 1g.10gb",
)  # fmt: skip


def test_a_slice_has_a_load_where_the_card_has_gpm(read: Read) -> None:
    """Each that of its own GPU instance, measured between two samples of it."""
    found = read(*TWO_SLICES, f"kind {GPU} 9 0 14 1", f"gpm {SLICE} 7 41.6", f"gpm {OTHER_SLICE} 9 0")
    assert [device["utilisation_percent"] for device in found["devices"]] == [None, 42, 0]


@pytest.mark.parametrize(
    "facts",
    [
        (f"kind {GPU} 8 0 14 1", f"gpm {SLICE} 7 50", f"gpm {OTHER_SLICE} 9 50"),
        (f"kind {GPU} 9 0 14 1", f"gpm {SLICE} 7 nan", f"gpm {OTHER_SLICE} 9 -1"),
        (f"kind {GPU} 9 0 14 1", f"gpm {SLICE} 7 50"),  # the other one tells no instance
    ],
    ids=["before Hopper", "no percentage", "no instance"],
)
def test_a_slice_of_which_nothing_is_told_has_no_load(read: Read, facts: tuple[str, ...]) -> None:
    found = read(*TWO_SLICES, *facts)
    assert [device["utilisation_percent"] for device in found["devices"]] == [None, None, None]


def test_samples_are_given_back(library: Path, tmp_path: Path) -> None:
    """A gateway reads for months."""
    facts = tmp_path / "facts"
    facts.write_text("\n".join([*TWO_SLICES, f"gpm {SLICE} 7 50", f"gpm {OTHER_SLICE} 9 50"]) + "\n")
    code = """
import ctypes
from gateway.gpus.sensors import NvmlSensors
for _ in range(3):
    assert NvmlSensors().read().devices[1].utilisation_percent == 50
print(ctypes.CDLL("libnvidia-ml.so.1").standin_samples_held())
"""
    assert run_python(code, library, facts) == "0\n"


def test_a_lost_gpu_is_named_and_the_others_are_measured(read: Read) -> None:
    found = read(f"gpu {GPU} 81559 0 NVIDIA A100", f"gpu {SECOND} 81559 0 NVIDIA A100", "lost 0")
    assert [device["uuid"] for device in found["devices"]] == [SECOND]
    assert found["lost"][0].startswith("GPU 0: ")


@pytest.mark.parametrize(("status", "words"), [(9, "Driver Not Loaded"), (18, "mismatch")])
def test_a_driver_that_does_not_answer_says_why(read: Read, status: int, words: str) -> None:
    found = read(f"init {status}")
    assert found["devices"] == []
    assert words in found["error"]
