"""A Debian to install into: an overlay over this machine's own, or over a tree, whose changes live in memory and go.

`DEVGW_TEST_DEBIAN_TREE` names a tree that debootstrap made; without it the host's file system is the lower layer, so
that what is tried is a package on a machine which people have, and nothing of it is written there.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import running

_MAKE = """
set -e
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
for own in etc/devgw var/lib/devgw var/cache/devgw opt/devgw; do rm -rf "$2/root/$own"; done  # this machine's gateway
mount -t proc proc "$2/root/proc"
mount --rbind /dev "$2/root/dev"
mount -t tmpfs tmpfs "$2/root/run"
mount -t tmpfs tmpfs "$2/root/tmp"
echo made
exec sleep infinity
"""
_SECONDS = 300


class DebianTree:
    """A root directory in a mount namespace of its own, kept by a process that sleeps."""

    def __init__(self, keeper: int, root: Path) -> None:
        self._enter = ["nsenter", "--mount", "--target", str(keeper), "chroot", str(root)]
        self._root = root
        self._keeper = keeper

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, without a terminal and with nothing to read."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "COLUMNS": "200"}
        done = subprocess.run(
            [*self._enter, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def lines(self, *command: str) -> list[str]:
        """Return what a command that succeeds prints."""
        return self.run(*command).stdout.splitlines()

    def bring(self, file: Path) -> str:
        """Copy a file of the host's into the tree; return its path there."""
        place = Path(f"/proc/{self._keeper}/root{self._root}/root") / file.name
        place.write_bytes(file.read_bytes())
        return f"/root/{file.name}"


@contextmanager
def debian_tree(directory: Path) -> Iterator[DebianTree]:
    """Yield a fresh tree; all that was changed in it goes with its namespace."""
    lower = os.environ.get("DEVGW_TEST_DEBIAN_TREE", "/")
    directory.mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _MAKE, "sh", lower, str(directory)]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        assert keeper.stdout.readline() == "made\n", keeper.stderr.read()
        yield DebianTree(keeper.pid, directory / "root")
