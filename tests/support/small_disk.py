"""A small file system of its own, to be filled to the last byte; needs root, as the tests of engines do."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KINDS = ("tmpfs", "ext4")


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, name: str = "fill") -> Path:
        """Write until not one byte more goes in."""
        file = self.path / name
        for size in (2**20, 2**12, 1):
            with file.open("ab", buffering=0) as out:
                try:
                    while True:
                        out.write(b"\1" * size)
                except OSError:
                    with suppress(OSError):
                        os.fsync(out.fileno())
        return file


@contextmanager
def small_disk(place: Path, mebibytes: int, kind: str) -> Iterator[SmallDisk]:
    """Mount a file system of so many MiB: tmpfs, or ext4 in a file."""
    mount = place / "disk"
    mount.mkdir(parents=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(mount)]
    else:
        image = place / "disk.img"
        with image.open("wb") as file:
            file.truncate(mebibytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(mount)]
    subprocess.run(command, check=True)
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
