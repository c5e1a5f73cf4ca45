"""What users' files take: on disk, through no link, however deep."""

import os
import threading
from pathlib import Path

from gateway.metrics.user_disk import UserDisk

MIB = 2**20


def counted(disk: UserDisk) -> dict[str, float]:
    return {sample.labels["user"]: sample.value for sample in disk.family().samples}


def test_files_are_counted_and_links_are_not_followed(tmp_path: Path) -> None:
    for name, size in (("alice", 3), ("bob", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(os.urandom(size * MIB))
    (tmp_path / "bob" / "link").symlink_to(tmp_path / "alice")
    disk = UserDisk()
    disk.count([(name, tmp_path / name) for name in ("alice", "bob")], threading.Event())
    found = counted(disk)
    assert 3 * MIB <= found["alice"] < 3.5 * MIB
    assert MIB <= found["bob"] < 1.5 * MIB


def test_what_cannot_be_counted_keeps_its_last_number(tmp_path: Path) -> None:
    disk = UserDisk()
    disk.count([("alice", tmp_path)], threading.Event())
    before = counted(disk)
    disk.count([("alice", tmp_path / "gone")], threading.Event())
    assert counted(disk) == before


def test_a_gateway_that_ends_counts_no_further(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    disk = UserDisk()
    disk.count([("alice", tmp_path)], stop)
    assert counted(disk) == {}
