"""Dials an environment's Unix sockets although the directory they lie in belongs to its user (invariant 5)."""

import os
import socket
import stat
from pathlib import Path
from typing import Literal

from gateway.errors import EngineError

SocketName = Literal["ssh", "notebook", "ports"]
_CONNECT_TIMEOUT_SECONDS = 5.0


def dial(run_directory: Path, name: SocketName, uid: int) -> socket.socket:
    """Return a connected, non-blocking stream to `<name>.sock`.

    The file is opened with O_PATH|O_NOFOLLOW, must be a socket owned by `uid`, and is connected to through its
    descriptor: what a user puts in its place afterwards changes nothing.

    Raises:
        EngineError: `socket.absent`, `socket.refused`, or `socket.forged` when something else lies there.
    """
    directory = _open_path(run_directory, os.O_DIRECTORY, None, name)
    try:
        descriptor = _open_path(Path(f"{name}.sock"), 0, directory, name)
    finally:
        os.close(directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != uid:
            raise EngineError("socket.forged", f"what lies at {name}.sock is not the environment's socket")
        return _connect(descriptor, name)
    finally:
        os.close(descriptor)


def _open_path(path: Path, flags: int, directory: int | None, name: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    except FileNotFoundError as exc:
        raise EngineError("socket.absent", f"the environment's {name} service is not there yet") from exc
    except OSError as exc:
        raise EngineError("socket.forged", f"what lies at {name}.sock cannot be opened: {exc.strerror}") from exc


def _connect(descriptor: int, name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_CONNECT_TIMEOUT_SECONDS)
        connection.connect(f"/proc/self/fd/{descriptor}")
        connection.setblocking(False)
    except OSError as exc:
        connection.close()
        raise EngineError("socket.refused", f"the environment's {name} service does not answer: {exc}") from exc
    return connection
