"""One operation at a time on an environment, across processes: the command line and the server both act on it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from gateway.environments.layout import disk_error
from gateway.errors import ConflictError
from gateway.model import EnvironmentRef


class EnvironmentLocks(Protocol):
    """Locks that all processes see which act on the same environments."""

    def hold(self, ref: EnvironmentRef, *, wait: bool = True) -> AbstractContextManager[None]:
        """Hold an environment's lock. Raises: ConflictError `environment.busy`, with `wait=False`; StoreError."""


class SharedLock(Protocol):
    """A lock in the database; see `gateway.store.locks`."""

    def take(self, *, wait: bool) -> bool: ...
    def release(self) -> None: ...


class SharedLocks:
    """Locks in the database, for gateways on several hosts; the server drops them with the process that has them."""

    def __init__(self, lock_of: Callable[[str], SharedLock]) -> None:
        self._lock_of = lock_of

    @contextmanager
    def hold(self, ref: EnvironmentRef, *, wait: bool = True) -> Iterator[None]:
        lock = self._lock_of(f"environment {ref.user}/{ref.name}")
        if not lock.take(wait=wait):
            raise _busy(ref)
        try:
            yield
        finally:
            lock.release()


def _busy(ref: EnvironmentRef) -> ConflictError:
    return ConflictError("environment.busy", f"another command is at work on {ref}", "try again in a moment")


class Locks:
    """Advisory locks in a directory; the kernel drops them with their process, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self, ref: EnvironmentRef, *, wait: bool = True) -> Iterator[None]:
        """Hold the environment's lock.

        Raises:
            ConflictError: `environment.busy`, with `wait=False` while another process holds it.
            StoreError: when the directory cannot be written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(
                self._directory / f"{ref.user}+{ref.name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise disk_error(exc, self._directory) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        except BlockingIOError as exc:
            raise _busy(ref) from exc
        finally:
            os.close(descriptor)
