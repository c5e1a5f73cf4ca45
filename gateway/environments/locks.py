"""One operation at a time on an environment, across processes: the command line and the server both act on it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.environments.layout import disk_error
from gateway.errors import ConflictError
from gateway.model import EnvironmentRef


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
            raise ConflictError(
                "environment.busy", f"another command is at work on {ref}", "try again in a moment"
            ) from exc
        finally:
            os.close(descriptor)
