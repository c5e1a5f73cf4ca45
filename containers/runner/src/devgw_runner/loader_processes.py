"""End a loader's processes within seconds, also those that hang or were told to ignore signals.

Without this an exception never ends the process: Python's exit waits for loader processes that its SIGTERM
does not reach. Starting them is left to `loading`.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import GeneratorType
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

GRACE_SECONDS = 2.0
"""How long a process may take to see that it is no longer needed; then it is killed, which loses nothing."""


@contextmanager
def opened(loader: Iterable[Any]) -> Iterator[Iterator[Any]]:
    """Give an iterator of `loader`, and end its processes with the block, however that ends."""
    iterator = iter(loader)
    try:
        yield iterator
    finally:
        if iterator is not loader:  # a generator given as data is the task's own, and goes on
            end_processes(iterator)
        forget_iterator(loader, iterator)


def forget_iterator(loader: Iterable[Any], iterator: Iterator[Any]) -> None:
    """Let a DataLoader open a new iterator next time; with persistent_workers it would use the ended one again."""
    if isinstance(loader, DataLoader) and loader._iterator is iterator:  # noqa: SLF001 - torch has no public name for it
        loader._iterator = None  # noqa: SLF001 - torch has no public name for it


def end_processes(iterator: Iterator[Any]) -> None:
    """End the processes of a DataLoader's iterator, or of one inside a generator; others have none that we know of."""
    if isinstance(iterator, GeneratorType):
        iterator.close()
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is None:
        return
    workers = list(getattr(iterator, "_workers", ()))
    if getattr(iterator, "_worker_pids_set", False):
        # Otherwise torch's SIGCHLD handler takes the end of a process for a failure, and raises.
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]  # noqa: SLF001 - torch has no public name for it
        iterator._worker_pids_set = False  # type: ignore[attr-defined]  # noqa: SLF001 - the iterator's own note of it
    killer = threading.Timer(GRACE_SECONDS, _kill, (workers,))
    killer.daemon = True
    killer.start()
    try:
        shut_down()
    finally:
        killer.cancel()
        _kill(workers)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()
