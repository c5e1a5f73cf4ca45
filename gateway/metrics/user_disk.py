"""How much disk each user's files take, counted now and then by `du`: a process of its own, of the lowest priority."""

import logging
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gateway.metrics import families
from gateway.metrics.families import AnyFamily

_LONGEST_SECONDS = 3600
_log = logging.getLogger(__name__)


class UserDisk:
    """The last count. A directory that cannot be counted leaves its user's old number."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}
        self._guard = threading.Lock()

    def count(self, directories: Iterable[tuple[str, Path]], stop: threading.Event) -> None:
        """Count (user, directory) one after the other; of a user with several, the sum."""
        sums: Counter[str] = Counter()
        failed: set[str] = set()
        for user, directory in directories:
            if stop.is_set():
                return
            size = _disk_bytes(directory)
            if size is None:
                failed.add(user)
            else:
                sums[user] += size
        with self._guard:
            old = self._bytes
            self._bytes = {**sums, **{user: old[user] for user in failed if user in old}}

    def family(self) -> AnyFamily:
        """Return the last count."""
        made = families.USER_DISK.new()
        with self._guard:
            for user, size in sorted(self._bytes.items()):
                made.add_metric([user], size)
        return made


def _disk_bytes(directory: Path) -> int | None:
    """Return what a tree takes on its own file system; du goes through no link, and however deep."""
    command = ["nice", "-n", "19", "du", "-sx", "--block-size=1", "--", str(directory)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LONGEST_SECONDS, check=False, env={"PATH": "/usr/bin:/bin"}
        )
        return int(done.stdout.split(b"\t", 1)[0])  # files that go meanwhile make du say 1, and a number all the same
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        _log.warning("the disk of %s could not be counted: %s", directory, exc)
        return None
