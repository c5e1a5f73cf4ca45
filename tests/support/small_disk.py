"""A small file system of its own, to be filled to the last byte; needs root, as the tests of engines do."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
def small_disk(place: Path, mebibytes: int, kind: str, also_for: int | None = None) -> Iterator[SmallDisk]:
    """Mount so many MiB: tmpfs, or ext4 in a file, and that also for a process with mounts of its own."""
    mount = place / "disk"
    mount.mkdir(parents=True)
    with ExitStack() as undo:
        if kind == "tmpfs":
            _run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(mount))
        else:
            image = place / "disk.img"
            with image.open("wb") as file:
                file.truncate(mebibytes << 20)
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            device = _run("losetup", "--find", "--show", str(image))
            undo.callback(_run, "losetup", "--detach", device)
            _run("mount", device, str(mount))
            if also_for is not None and not _shares_mounts(also_for):
                enter = ("nsenter", "--target", str(also_for), "--mount")
                _run(*enter, "mount", device, str(mount))
                undo.callback(_run, *enter, "umount", "-l", str(mount))
        undo.callback(_run, "umount", "-l", str(mount))
        yield SmallDisk(mount)


def docker_pid(url: str) -> int:
    """Return the process that answers on Docker's Unix socket; it sees the mounts of its own namespace only."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(url.removeprefix("unix://"))
        return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _shares_mounts(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
