"""The kernel's account of an environment, as cgroups and Docker's daemon tell it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.engines.bubblewrap.load import load_of as load_of_groups
from gateway.engines.docker.containers import load_of as load_told
from gateway.engines.interface import Load

V2 = {
    "cpu.stat": "usage_usec 1500000\nuser_usec 1\n", "memory.current": "900\n",
    "memory.stat": "anon 5\ninactive_file 200\n",
}  # fmt: skip
V1_MEMORY = {"memory.usage_in_bytes": "900\n", "memory.stat": "inactive_file 1\ntotal_inactive_file 300\n"}
V1_CPU = {"cpu.stat": "nr_periods 0\n"}
V1_ACCOUNT = {"cpuacct.usage": "2500000000\n"}


def groups(root: Path, *contents: dict[str, str]) -> tuple[Path, ...]:
    found = []
    for number, content in enumerate(contents):
        (root / str(number)).mkdir()
        for name, text in content.items():
            (root / str(number) / name).write_text(text)
        found.append(root / str(number))
    return tuple(found)


@pytest.mark.parametrize(
    ("contents", "load"),
    [
        ([V2], Load(1.5, 700)),
        ([V1_MEMORY, V1_CPU, {}, V1_ACCOUNT], Load(2.5, 600)),  # mounted apart
        ([V1_MEMORY, V1_CPU | V1_ACCOUNT, {}], Load(2.5, 600)),  # cpu,cpuacct
        ([V1_MEMORY, V1_CPU, {}], None),  # started by a version that made no group for the account
        ([V2 | {"memory.stat": "inactive_file 2000\n"}], Load(1.5, 0)),
        ([V2 | {"memory.current": "\n"}], None),
        ([V2 | {"memory.stat": "anon 5\n"}], None),
        ([], None),
    ],
)
def test_cgroups_are_added_up(contents: list[dict[str, str]], load: Load | None, tmp_path: Path) -> None:
    assert load_of_groups(groups(tmp_path, *contents)) == load


def test_a_group_that_is_gone_is_no_load(tmp_path: Path) -> None:
    assert load_of_groups((tmp_path / "gone",)) is None


@pytest.mark.parametrize(
    ("told", "load"),
    [
        ({"cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000}},
          "memory_stats": {"usage": 900, "stats": {"inactive_file": 100}}}, Load(3.0, 800)),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000}},
          "memory_stats": {"usage": 900, "stats": {"inactive_file": 1, "total_inactive_file": 300}}}, Load(3.0, 600)),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 1}}, "memory_stats": {"usage": 900}}, Load(1e-9, 900)),
        ({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}, None),  # it ended meanwhile
        ({}, None),
    ],
)  # fmt: skip
def test_docker_is_understood_with_either_cgroup(told: dict[str, Any], load: Load | None) -> None:
    assert load_told(told) == load
