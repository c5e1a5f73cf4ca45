"""The directory behind `/run/devgw` of an environment on this host: its sockets are dialled, its report is read.

Its user owns it and may put anything there, so nothing is opened through a link (invariant 5). Every engine whose
environments live on this host uses this one implementation.
"""

import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gateway.engines.interface import Service
from gateway.errors import EngineError
from gateway.model import EnvironmentSpec
from gateway.removal import remove_tree

TARGET = "/run/devgw"
_STATUS = "status.json"
_MOST_STATUS_BYTES = 4096
_CONNECT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One environment's directory, and who has to own what is used of it."""

    path: Path
    uid: int

    @classmethod
    def of(cls, spec: EnvironmentSpec) -> "RunDirectory | None":
        """Return what the specification mounts at `/run/devgw`."""
        return next((cls(mount.source, spec.uid) for mount in spec.mounts if mount.target == TARGET), None)

    def dial(self, service: Service) -> socket.socket:
        """Return a connected, non-blocking stream to `<service>.sock`.

        The file is opened with O_PATH|O_NOFOLLOW, must be a socket owned by `uid`, and is connected to through its
        descriptor: what a user puts in its place afterwards changes nothing.

        Raises:
            EngineError: `socket.absent`, `socket.refused`, or `socket.forged` when something else lies there.
        """
        directory = _open_path(self.path, os.O_DIRECTORY, None, service)
        try:
            descriptor = _open_path(Path(f"{service}.sock"), 0, directory, service)
        finally:
            os.close(directory)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != self.uid:
                raise EngineError("socket.forged", f"what lies at {service}.sock is not the environment's socket")
            return _connect(descriptor, service)
        finally:
            os.close(descriptor)

    def status(self) -> bytes | None:
        """Return the environment's report of itself; a FIFO in its place must not make us wait (O_NONBLOCK)."""
        with suppress(OSError):
            directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(_STATUS, flags, dir_fd=directory)
            finally:
                os.close(directory)
            try:
                found = os.fstat(descriptor)
                is_own = stat.S_ISREG(found.st_mode) and found.st_uid == self.uid
                return os.read(descriptor, _MOST_STATUS_BYTES) if is_own else None
            finally:
                os.close(descriptor)
        return None

    def remove_sockets(self) -> None:
        """Remove what an earlier environment left, whatever it made of it. Raises: EngineError `engine.failed`."""
        for service in get_args(Service):
            try:
                remove_tree(self.path / f"{service}.sock")
            except OSError as exc:
                raise EngineError(
                    "engine.failed",
                    f"cannot remove {exc.filename or self.path}: {exc.strerror}",
                    "check owner and permissions, then try again",
                ) from exc


def absent(service: Service) -> EngineError:
    """Say that there is nothing to dial."""
    return EngineError("socket.absent", f"the environment's {service} service is not there yet")


def _open_path(path: Path, flags: int, directory: int | None, service: Service) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    except FileNotFoundError as exc:
        raise absent(service) from exc
    except OSError as exc:
        raise EngineError("socket.forged", f"what lies at {service}.sock cannot be opened: {exc.strerror}") from exc


def _connect(descriptor: int, service: Service) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_CONNECT_TIMEOUT_SECONDS)
        connection.connect(f"/proc/self/fd/{descriptor}")
        connection.setblocking(False)
    except OSError as exc:
        connection.close()
        raise EngineError("socket.refused", f"the environment's {service} service does not answer: {exc}") from exc
    return connection
