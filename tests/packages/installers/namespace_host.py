"""A host to manage: Debian's own systemd as the first process of namespaces of its own, with a real sshd.

Its root is an overlay over the tree of `DEVGW_TEST_DEBIAN_TREE`, its network a loopback alone; ssh reaches that through
`nsenter` and `socat`. All of it ends with the process that keeps it, and what was written lies in memory.
"""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.gateway_process import poll
from tests.support.processes import running

_BOOT = """
set -e
cd "$2"
mount -t tmpfs -o mode=755 tmpfs .
cd "$2"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" root
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${node%:*} c 1 ${node#*:}; done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
hostname gw
mkdir -m 700 -p root/.ssh .host
cat >root/.ssh/authorized_keys
pivot_root . .host
exec chroot . sh -c 'umount -l /.host; rmdir /.host; exec env -i container=devgw-test /lib/systemd/systemd </dev/null'
"""
_SECONDS = 120
_JOIN = 'echo $$ >"$0/cgroup.procs"; exec "$@"'


class NamespaceHost:
    """A host that runs; `first` is the process id of its systemd as this machine sees it."""

    def __init__(self, first: int, key: Path) -> None:
        self.key = key
        self.first = first
        self._enter = ["nsenter", "--target", str(first), "--all", "--root", "--wd"]

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command there as root."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        environment |= {"HOME": "/root", "COLUMNS": "200"}
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

    def path(self, path: str) -> Path:
        """Return where a file of the host lies on this machine."""
        return Path(f"/proc/{self.first}/root{path}")

    def ssh_options(self, directory: Path) -> str:
        """Return what ssh needs to get there; the host's key is taken as it is, once."""
        proxy = f"nsenter --target {self.first} --net socat STDIO TCP:127.0.0.1:22"
        known = f"-o UserKnownHostsFile={directory / 'known_hosts'} -o StrictHostKeyChecking=accept-new"
        return f"-F none -o IdentitiesOnly=yes {known} -o ProxyCommand='{proxy}'"


@contextmanager
def namespace_host(directory: Path) -> Iterator[NamespaceHost]:
    """Boot one, and yield it when its sshd answers."""
    directory.mkdir()
    (directory / "root").mkdir()
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60)
    group = _cgroups() / f"devgw-test-host-{uuid.uuid4()}"
    group.mkdir()
    unshare = ["unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
    boot = ["sh", "-c", _BOOT, "sh", os.environ["DEVGW_TEST_DEBIAN_TREE"], str(directory / "root")]
    command = ["sh", "-c", _JOIN, str(group), *unshare, "--propagation", "private", "--", *boot]
    log = directory / "boot.log"
    try:
        with log.open("w") as output, (key.with_suffix(".pub")).open() as authorized:
            options = {"stdin": authorized, "stdout": output, "stderr": output, "start_new_session": True}
            with running(command, **options) as keeper:
                host = NamespaceHost(_first(keeper, log), key)
                poll(lambda: _answers(host), f"sshd of the host ({log.read_text()})", 60)
                yield host
    finally:
        _remove(group)


def _first(keeper: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the only child of `unshare`, once it is systemd."""
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")

    def look() -> int:
        assert keeper.poll() is None, log.read_text()
        with suppress(OSError, IndexError):
            first = children.read_text().split()[0]
            if Path(f"/proc/{first}/comm").read_text() == "systemd\n":
                return int(first)
        return 0

    return int(poll(look, "the host's systemd", 30))


def _answers(host: NamespaceHost) -> bool:
    """Say whether sshd has begun to serve there."""
    return host.run("systemctl", "is-active", "ssh.service", check=False).stdout == "active\n"


def _cgroups() -> Path:
    """Return where this machine has cgroup v2 mounted, beside v1 or alone."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return next(Path(mount[1]) for mount in mounts if mount[2] == "cgroup2")


def _remove(group: Path) -> None:
    """Take away the host's groups when its last process is gone."""
    poll(lambda: "populated 0" in (group / "cgroup.events").read_text(), "the end of the host's processes")
    for place in sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)):
        place.rmdir()
    group.rmdir()
