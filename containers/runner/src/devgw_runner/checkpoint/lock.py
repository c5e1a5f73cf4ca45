"""One writer per checkpoint directory: a lock that the kernel frees when its process ends, however it ends."""

import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devgw_runner.errors import InUseError
from devgw_runner.parallel.world import World

LOCK = ".lock"
_HELD: set[Path] = set()
_HELD_GUARD = threading.Lock()
_WITHOUT_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})


@contextmanager
def only_writer(root: Path, world: World, *, enabled: bool = True) -> Iterator[None]:
    """Hold the directory while the block runs; the main process does it for all.

    Raises:
        InUseError: another run writes there; every process of this one raises it.
    """
    if not enabled:
        yield
        return
    descriptor, refusal = _acquire(root) if world.is_main else (None, "")
    refusal = world.from_main(refusal)
    if refusal:
        raise InUseError(refusal, "wait for it or 'devgw-run jobs' shows it; another --run-name trains beside it")
    try:
        yield
    finally:
        if descriptor is not None:
            with _HELD_GUARD:
                os.close(descriptor)  # closing any descriptor of the file gives a POSIX lock back
                _HELD.discard(root.resolve())


def _acquire(root: Path) -> tuple[int | None, str]:
    """Return the descriptor that holds the lock, or why it cannot be had."""
    with _HELD_GUARD:
        # A POSIX lock does not hold off its own process, and is not inherited by loader processes: those outlive
        # a killed run by seconds, and must not hold its directory.
        if root.resolve() in _HELD:
            return None, f"{root} is in use by another run in this process"
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = _read_holder(descriptor)
            os.close(descriptor)
            if exc.errno in _WITHOUT_LOCKS:
                print(f"devgw-run: note: {root} has no locks; let one run at a time write there", file=sys.stderr)
                return None, ""
            if exc.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            return None, f"{root} is in use by another run{holder}"
        _HELD.add(root.resolve())
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        return descriptor, ""


def _read_holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f": process {holder['pid']} on {holder['host']}, since {since}"
    except (ValueError, KeyError, TypeError, OSError):
        return ""
