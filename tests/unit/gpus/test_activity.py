"""Activity on GPUs and critical errors, asked through nvidia-ml-py with a stand-in for the driver's library."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml_standin.library import build, run_python
from tests.unit.gpus.test_inventory import uuid

Ask = Callable[..., Any]
ACTIVITY = """
import sys
from gateway.gpus.activity import NvmlActivity
uuids = {uuids!r}
print((NvmlActivity().processes(uuids), NvmlActivity().utilisation(uuids)))
"""
XIDS = """
from threading import Event
from gateway.gpus.activity import watch_xids
seen, stop = [], Event()
def on_critical(index, xid):
    seen.append((index, xid))
    if xid == {last}:
        stop.set()
watch_xids(on_critical, stop)
print(seen)
"""
TWO = (f"gpu {uuid(0)} 81559 0 NVIDIA A100", f"gpu {uuid(1)} 81559 1 NVIDIA A100")
SLICE = f"slice 1 0 {uuid(10, 'MIG')} 9984 1 1 NVIDIA A100 MIG 1g.10gb"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the stand-in, built once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def ask(library: Path, tmp_path: Path) -> Ask:
    """Return a function that runs code on a host described by the stand-in's lines."""

    def asking(code: str, *lines: str) -> Any:
        facts = tmp_path / "facts"
        facts.write_text("\n".join(lines) + "\n")
        return ast.literal_eval(run_python(code, library, facts))

    return asking


def test_processes_and_utilisation_are_told_by_uuid(ask: Ask) -> None:
    """Whole GPUs and slices; a slice does not tell how busy it is, and a GPU without a process is left out."""
    code = ACTIVITY.format(uuids=[uuid(0), uuid(10, "MIG"), uuid(7)])
    facts = (*TWO, SLICE, f"process {uuid(0)} 41", f"process {uuid(0)} 42", f"process {uuid(10, 'MIG')} 43")
    processes, utilisation = ask(code, *facts, f"busy {uuid(0)} 97")
    assert processes == {uuid(0): (41, 42), uuid(10, "MIG"): (43,)}
    assert utilisation == {uuid(0): 97}


def test_a_slice_that_works_keeps_its_environment_where_its_card_can_tell(ask: Ask) -> None:
    """From Hopper on: a training in a slice is a use, however little its processor does."""
    code = ACTIVITY.format(uuids=[uuid(1), uuid(10, "MIG")])
    _processes, utilisation = ask(code, *TWO, SLICE, f"gpm {uuid(10, 'MIG')} 3 64.4")
    assert utilisation == {uuid(10, "MIG"): 64}


def test_a_gpu_that_is_idle_is_told_as_idle(ask: Ask) -> None:
    """Zero is an answer."""
    assert ask(ACTIVITY.format(uuids=[uuid(0)]), *TWO, f"busy {uuid(0)} 0") == ({}, {uuid(0): 0})


def test_a_driver_that_does_not_answer_tells_nothing(ask: Ask) -> None:
    """Nothing is raised: the inventory says why there is no GPU."""
    assert ask(ACTIVITY.format(uuids=[uuid(0)]), "init 9") == ({}, {})
    assert ask(XIDS.format(last=79), "init 9") == []


@pytest.mark.parametrize("fault", [13, 31, 43, 45, 68, 109])
def test_faults_of_a_program_are_no_faults_of_the_gpu(ask: Ask, fault: int) -> None:
    """An out-of-bounds access of somebody's kernel takes no GPU out of use; a GPU off the bus is."""
    assert ask(XIDS.format(last=79), *TWO, f"xid 0 {fault}", "xid 1 48", "xid 0 79") == [(1, 48), (0, 79)]
