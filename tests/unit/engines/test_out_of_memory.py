"""The kernel's account of what it killed at a memory limit."""

from pathlib import Path

import pytest

from gateway.engines.out_of_memory import count_out_of_memory, memory_groups

MARK = "4f" * 32


def proc_with(tmp_path: Path, cgroup: str) -> Path:
    """Return a /proc in which process 7 is in these cgroups."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(cgroup)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "text"), [("memory.events", "oom 2\noom_kill 3\n"), ("memory.oom_control", "under_oom 0\noom_kill 3\n")]
)
def test_kills_at_the_memory_limit_are_counted(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    assert count_out_of_memory((tmp_path / "absent", tmp_path)) == 3


@pytest.mark.parametrize(
    ("cgroup", "groups"),
    [
        # version 2: Docker's and Podman's scopes, under systemd
        (f"0::/system.slice/docker-{MARK}.scope\n", [f"system.slice/docker-{MARK}.scope"]),
        (f"0::/machine.slice/libpod-{MARK}.scope/container\n", [f"machine.slice/libpod-{MARK}.scope/container"]),
        # version 1: the controller of memory has a tree of its own, beside a version 2 without it
        (
            f"4:memory:/libpod_parent/libpod-{MARK}\n3:cpu,cpuacct:/libpod_parent/libpod-{MARK}\n0::/user\n",
            [f"memory/libpod_parent/libpod-{MARK}"],
        ),
        # another process has the number by now, or limits nothing
        ("0::/user.slice/session-1.scope\n", []),
        ("4:memory:/\n1:name=systemd:/\n", []),
    ],
)
def test_the_groups_of_a_container_are_found_by_its_id(tmp_path: Path, cgroup: str, groups: list[str]) -> None:
    found = memory_groups(7, MARK, Path("/cg"), proc_with(tmp_path, cgroup))
    assert found == tuple(Path("/cg") / group for group in groups)


def test_a_process_that_has_ended_is_in_no_group(tmp_path: Path) -> None:
    assert memory_groups(7, MARK, proc=tmp_path) == ()
