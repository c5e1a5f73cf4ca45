"""Listening Unix sockets that notice when somebody removes or replaces their file."""

import contextlib
import os
import socket
import time
from pathlib import Path


def open_listener(path: Path, backlog: int = 128) -> socket.socket:
    """Listen at `path` with mode 0600, in place of whatever stood there.

    The socket is bound under a draft name and renamed, so no client ever meets a file that does not answer.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    previous_umask = os.umask(0o177)
    try:
        listener.bind(str(draft))
    finally:
        os.umask(previous_umask)
    listener.listen(backlog)
    if path.is_dir() and not path.is_symlink():  # a rename replaces anything but a folder
        path.rename(path.with_name(f".{path.name}.moved.{time.time_ns()}"))
    draft.rename(path)
    return listener


def identify_file(path: Path) -> tuple[int, int] | None:
    """Device and inode of what stands at `path`, not following links; None when nothing does."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
