"""CPUs and memory are what the cgroup grants, not what the machine has."""

import os
from pathlib import Path

import pytest
from devgw_runner.environment import prepare_compiler_environment, process_environment
from devgw_runner.resources import read_resources, usable_cpus

AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, min(2, AFFINITY)),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "max 100000"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY),
        ({}, AFFINITY),
    ],
)
def test_cpus_follow_the_quota_of_either_cgroup_version(tmp_path: Path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert usable_cpus(tmp_path) == cpus


def test_memory_follows_the_cgroup(tmp_path: Path):
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert read_resources(tmp_path).memory_bytes == 2**30
    (tmp_path / "memory.max").write_text("max\n")
    assert read_resources(tmp_path).memory_bytes > 2**28


def test_compile_threads_follow_the_quota_and_users_values_stay(tmp_path: Path):
    environment = {"TRITON_CACHE_DIR": "/mine"}
    prepare_compiler_environment(tmp_path, environment)
    assert environment["TRITON_CACHE_DIR"] == "/mine"
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")
    assert environment["TORCHINDUCTOR_COMPILE_THREADS"] == str(usable_cpus())
    assert process_environment(tmp_path, 3)["OMP_NUM_THREADS"] == "3"
