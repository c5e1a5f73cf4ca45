"""Make files and names durable in the order that survives a crash; every step of it goes through `os`.

A file's content is durable after fsync of the file, its name after fsync of the directory that holds it.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

SET_ASIDE_PREFIX = ".replaced-"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h
_CANNOT_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is durable when this returns; its name is durable after `sync_directory`."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a crash leaves the old content or the new."""
    temporary = path.with_name(f".tmp-{path.name}")
    write_file(temporary, content)
    os.replace(temporary, path)  # noqa: PTH105 - tests watch the calls of os
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable, whoever wrote it on this machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, final: Path) -> None:
    """Rename a directory whose content is durable to its final name, in place of what stands there.

    What stood there goes only after the new name is durable. Where the file system cannot exchange two names,
    a crash in between leaves the old one under a name that `recover` puts back.
    """
    aside: Path | None = None
    if not final.exists():
        os.rename(temporary, final)  # noqa: PTH104 - tests watch the calls of os
    elif not final.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    elif _exchange(temporary, final):
        aside = temporary
    else:
        aside = final.with_name(SET_ASIDE_PREFIX + final.name)
        os.rename(final, aside)  # noqa: PTH104 - tests watch the calls of os
        os.rename(temporary, final)  # noqa: PTH104 - tests watch the calls of os
    sync_directory(final.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def recover(root: Path) -> None:
    """Put back what a crash left set aside without a successor."""
    for path in root.glob(SET_ASIDE_PREFIX + "*"):
        final = path.with_name(path.name.removeprefix(SET_ASIDE_PREFIX))
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.rename(path, final)  # noqa: PTH104 - tests watch the calls of os


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at once (renameat2); False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))
