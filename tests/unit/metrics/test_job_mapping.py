"""dcgm-exporter's files: one for each leased GPU, and never another's."""

from pathlib import Path

import pytest

from gateway.metrics.job_mapping import JobMapping
from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.leases import Lease
from tests.unit.metrics.records import NOON

ONE, TWO, SLICE, OTHER_SLICE = (GpuUuid(name) for name in ("GPU-1", "GPU-2", "MIG-1", "MIG-2"))
INDICES = {ONE: "0", TWO: "1", SLICE: "2:0", OTHER_SLICE: "2:1"}


def lease(gpu: GpuUuid, handle: str) -> Lease:
    return Lease(gpu, EnvironmentRef.parse(handle), NOON)


def files(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith(".")}


def test_files_name_who_holds_each_gpu(tmp_path: Path) -> None:
    """Slices of one GPU share its file, a line each: dcgm-exporter knows no files of slices."""
    held = [lease(ONE, "alice"), lease(SLICE, "bob+work"), lease(OTHER_SLICE, "carol")]
    JobMapping(tmp_path).write(held, INDICES)
    assert files(tmp_path) == {"0": "alice\n", "2": "bob+work\ncarol\n"}
    assert all(int(path.name) >= 0 for path in tmp_path.iterdir() if not path.name.startswith("."))


def test_a_gpu_given_back_loses_its_file_also_after_a_restart(tmp_path: Path) -> None:
    JobMapping(tmp_path).write([lease(ONE, "alice"), lease(TWO, "bob")], INDICES)
    JobMapping(tmp_path).write([lease(TWO, "carol")], INDICES)
    assert files(tmp_path) == {"1": "carol\n"}


def test_files_of_others_stay(tmp_path: Path) -> None:
    """A batch system may name its jobs in the same directory."""
    (tmp_path / "7").write_text("slurm-job\n")
    mapping = JobMapping(tmp_path)
    mapping.write([lease(ONE, "alice")], INDICES)
    mapping.write([], INDICES)
    assert files(tmp_path) == {"7": "slurm-job\n"}


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    mapping = JobMapping(tmp_path)
    mapping.write([lease(ONE, "alice")], INDICES)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    mapping.write([lease(ONE, "alice")], INDICES)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_a_gpu_whose_number_nobody_knows_has_no_file(tmp_path: Path) -> None:
    JobMapping(tmp_path).write([lease(ONE, "alice")], {})
    assert files(tmp_path) == {}


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JobMapping(tmp_path / "gone").write([lease(ONE, "alice")], INDICES)
