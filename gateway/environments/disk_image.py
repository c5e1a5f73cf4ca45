"""A file with an ext4 file system of a fixed size: made whole or not at all, checked, grown. `disk_mounts` mounts it.

Its whole room is set aside when it is made: what is promised to one environment no other can take, and a full host
never makes writes inside fail.
"""

import os
import shutil
import subprocess
from pathlib import Path

from gateway.disk import BALLAST_BYTES, is_full
from gateway.errors import ConflictError, DevgwError, StoreError
from policies.quantities import show_size

_KEPT_FREE_BYTES = 4 * BALLAST_BYTES  # for the journal, the database and administrators
_BLOCK_BYTES = 4096
_LONGEST_SECONDS = 3600
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
_SYS_RESOURCE = 1 << 24  # capability.h
_MENDED = 1  # e2fsck(8): 1 is "errors corrected", 4 and more is what it will not touch unasked
_NEEDED = {"mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs", "resize2fs": "e2fsprogs",
           "losetup": "mount", "mount": "mount", "umount": "mount", "nsenter": "util-linux"}  # fmt: skip


def why_no_images() -> str:
    """Say why this process can neither make nor mount images; empty where it can."""
    if os.geteuid() != 0:
        return "the gateway is not root"
    for program, package in _NEEDED.items():
        if shutil.which(program, path=_SEARCHED) is None:
            return f"{program} is not installed (package {package})"
    if not Path("/dev/loop-control").exists():
        return "this host has no loop devices (/dev/loop-control; 'modprobe loop')"
    return ""


def run_program(*command: str, allowed: int = 0) -> str:
    """Run a program of the host; returns its output. Raises: StoreError `disk.failed`, with its first line."""
    program = shutil.which(command[0], path=_SEARCHED) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_LONGEST_SECONDS,
            check=False,
            env={"PATH": _SEARCHED, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        message = f"{command[0]} cannot run: {exc}"
        raise StoreError("disk.failed", message, "'devgw doctor' says what is missing") from exc
    if done.returncode > allowed:
        said = next((line for line in reversed((done.stdout + done.stderr).splitlines()) if line.strip()), "")
        message = f"{command[0]} failed ({done.returncode}): {said.strip()}"
        raise StoreError("disk.failed", message, "'dmesg' may say more")
    return done.stdout


def make_image(place: Path, size_bytes: int) -> None:
    """Make an image under its name, with all its room set aside. Raises: StoreError; then nothing is left."""
    partial = place.with_name(f"{place.name}.new")
    partial.unlink(missing_ok=True)
    try:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _take_room(descriptor, partial, 0, size_bytes)
        finally:
            os.close(descriptor)
        # nodiscard: mkfs would give the room back; -m 0: root writes nothing here
        run_program("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", str(partial))
        partial.rename(place)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise _no_room(exc, place) from exc
    except (DevgwError, KeyboardInterrupt, SystemExit):
        partial.unlink(missing_ok=True)
        raise


def check_image(place: Path, *options: str) -> None:
    """Have fsck replay the journal and mend what it may unasked; nothing may have it mounted.

    Raises:
        StoreError: `disk.damaged`.
    """
    try:
        run_program("e2fsck", "-p", *options, str(place), allowed=_MENDED)
    except StoreError as exc:
        raise StoreError(
            "disk.damaged",
            f"the file system in {place} is damaged, and fsck does not mend it unasked: {exc.message}",
            f"keep a copy, then 'e2fsck -f {place}'",
        ) from exc


def may_grow_mounted() -> bool:
    """Say whether this process may grow a file system that is mounted: the kernel asks for CAP_SYS_RESOURCE."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) & _SYS_RESOURCE)


def grow_image(place: Path, size_bytes: int, device: str) -> None:
    """Make an image larger, mounted from `device` or nowhere; done again after it was cut off, it is finished.

    Raises:
        ConflictError: `disk.no-room`; then it is as it was.
        StoreError: `disk.damaged`, `disk.failed`.
    """
    descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size_now = os.fstat(descriptor).st_size
        if size_now < size_bytes:
            try:
                _take_room(descriptor, place, size_now, size_bytes)
            except (OSError, DevgwError) as exc:
                os.ftruncate(descriptor, size_now)
                raise (_no_room(exc, place) if isinstance(exc, OSError) else exc) from exc
    finally:
        os.close(descriptor)
    if device:
        run_program("losetup", "--set-capacity", device)
        run_program("resize2fs", device)
    else:
        check_image(place, "-f")
        run_program("resize2fs", str(place))


def whole_blocks(size_bytes: int) -> int:
    """Round a size down to whole blocks of the file system."""
    return size_bytes - size_bytes % _BLOCK_BYTES


def _take_room(descriptor: int, place: Path, size_now: int, size_bytes: int) -> None:
    found = os.statvfs(place.parent)
    free, more = found.f_bavail * found.f_frsize, size_bytes - size_now
    if free < more + _KEPT_FREE_BYTES:
        raise ConflictError(
            "disk.no-room",
            f"{show_size(more)} for {place} do not fit: {_rounded(free)} are free, of which"
            f" {show_size(_KEPT_FREE_BYTES)} stay for the gateway",
            "make room there, or ask for less with --disk",
        )
    os.posix_fallocate(descriptor, size_now, more)


def _rounded(size_bytes: int) -> str:
    return show_size(size_bytes - size_bytes % 2**20)


def _no_room(exc: OSError, place: Path) -> DevgwError:
    if is_full(exc):
        return ConflictError("disk.no-room", f"there is no room for {place}", "make room, or ask for less with --disk")
    return StoreError("disk.failed", f"{place}: {(exc.strerror or str(exc)).lower()}", "check owner and permissions")
