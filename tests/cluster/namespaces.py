"""Namespaces held by a process: what runs in them ends with it. Nothing of this machine's own network is changed."""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_UP_SECONDS = 30


class Namespaces:
    """New namespaces of the kinds that `unshare` was told; with `--pid`, killing the holder kills all inside."""

    def __init__(self, *unshare: str, setup: str = "") -> None:
        script = f"set -e; {setup}; echo up; exec sleep infinity" if setup else "echo up; exec sleep infinity"
        self._process = subprocess.Popen(
            ["unshare", *unshare, "--", "sh", "-c", script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"up\n":
            self._process.kill()
            raise RuntimeError(f"these namespaces could not be made: {unshare}")
        self._has_child = "--fork" in unshare

    @property
    def pid(self) -> int:
        """The holder's process number, as this machine counts."""
        if not self._has_child:
            return self._process.pid
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def enter(self, *kinds: str) -> list[str]:
        """Return the beginning of a command line that runs in them."""
        return ["nsenter", "--target", str(self.pid), *(f"--{kind}" for kind in kinds), "--"]

    def end(self) -> None:
        """Kill the holder, and wait until it is gone."""
        if self._has_child and self._process.poll() is None:
            os.kill(self.pid, 9)
        self._process.kill()
        self._process.wait(timeout=_UP_SECONDS)


def kill_program(pid: int) -> None:
    """Kill a program that was started by entering namespaces: it may be a child of what entered them."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for one in [*(map(int, children.read_text().split()) if children.exists() else ()), pid]:
        with suppress(ProcessLookupError):
            os.kill(one, 9)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Poll until `condition()` is true. Raises: TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.1)
