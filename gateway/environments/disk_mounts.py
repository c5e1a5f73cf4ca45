"""Mounts images where everybody sees them who must: this process, the host, and the engine's daemon.

A service has a mount namespace of its own, and so may a daemon. What is mounted is read from the kernel, never
remembered: after a kill or a restart the next look finds what is there.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from gateway.environments.disk_image import check_image, run_program
from gateway.errors import StoreError

_OPTIONS = "nosuid,nodev"
_HOST = 1
_CLOSE_SECONDS, _POLL_SECONDS = 5.0, 0.1
_ESCAPED = re.compile(r"\\([0-7]{3})")


class DiskMounts:
    """`viewers` are processes that must see what is mounted, beside this one and the host's first."""

    def __init__(self, viewers: Callable[[], Iterable[int]] = tuple) -> None:
        self._viewers = viewers

    def device(self, place: Path) -> str:
        """Return the loop device that is mounted at a place as this process sees it; empty where none is."""
        return _mounted(os.getpid(), place)

    def places(self) -> set[Path]:
        """Return where anything is mounted, as this process sees it."""
        return {place for place, _device in _mounts_of(os.getpid())}

    def mount(self, image: Path, place: Path) -> str:
        """Mount an image wherever it is not yet, checked where nothing has it open; returns its device.

        Raises:
            StoreError: `disk.damaged`, `disk.failed`.
        """
        device = next((found for pid in self._pids() if (found := _mounted(pid, place))), "") or _loop_of(image)
        if not device:
            check_image(image)
        for pid in self._pids():
            if _mounted(pid, place):
                continue
            enter = _enter(pid)
            source, options = (device, _OPTIONS) if device else (str(image), f"loop,{_OPTIONS}")
            run_program(*enter, "mount", "-t", "ext4", "-o", options, "--", source, str(place))
            device = device or _mounted(pid, place)
        if not self.device(place):
            message = f"{image} is mounted, and not to be seen at {place}"
            raise StoreError("disk.failed", message, "'findmnt' shows mounts")
        return device

    def unmount(self, place: Path) -> None:
        """Unmount it everywhere; who still has a file of it open keeps that until they close it. Raises: StoreError.

        Also in namespaces that were made while it was mounted, such as those of other sandboxes: where the host's
        mounts are private their copies would stay, and with them the room of an image that was removed.
        """
        for pid in self._pids():
            while _mounted(pid, place):
                try:
                    run_program(*_enter(pid), "umount", "--", str(place))
                except StoreError:  # somebody is in there
                    run_program(*_enter(pid), "umount", "--lazy", "--", str(place))
        for pid in _others_who_see(place):
            with suppress(StoreError):  # it may have ended, or hide the place
                run_program(*_enter(pid), "umount", "--lazy", "--", str(place))

    def is_closed(self, image: Path) -> bool:
        """Say whether no loop device has an image open; the kernel gets some seconds to end what was just stopped."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        while _loop_of(image):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _pids(self) -> Iterator[int]:
        """Return one process of each namespace, the host's first: from there a mount may spread by itself."""
        seen: set[str] = set()
        for pid in (_HOST, *self._viewers(), os.getpid()):
            namespace = _namespace_of(pid)
            if namespace and namespace not in seen:
                seen.add(namespace)
                yield pid


def _others_who_see(place: Path) -> list[int]:
    """Return a process of each namespace in which something is mounted there."""
    found: dict[str, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            namespace = _namespace_of(int(entry.name))
            if namespace and namespace not in found and _mounted(int(entry.name), place):
                found[namespace] = int(entry.name)
    return list(found.values())


def _namespace_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def _enter(pid: int) -> tuple[str, ...]:
    is_own = _namespace_of(pid) == _namespace_of(os.getpid())
    return () if is_own else ("nsenter", f"--mount=/proc/{pid}/ns/mnt", "--")


def _mounted(pid: int, place: Path) -> str:
    """Return what a process sees mounted at a place, the topmost."""
    return next((device for found, device in reversed(_mounts_of(pid)) if found == place), "")


def _mounts_of(pid: int) -> list[tuple[Path, str]]:
    """Return place and device of each mount that a process sees, in their order (proc_pid_mountinfo(5))."""
    try:
        text = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return []
    lines = (line.split(" ") for line in text.splitlines())
    return [(Path(_unescaped(fields[4])), _unescaped(fields[fields.index("-") + 2])) for fields in lines]


def _loop_of(image: Path) -> str:
    """Return a loop device that has the image open already."""
    lines = run_program("losetup", "--associated", str(image), "--noheadings", "--output", "NAME").split()
    return lines[0] if lines else ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
