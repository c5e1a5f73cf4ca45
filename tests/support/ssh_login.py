"""A real sshd on the loopback that an administrator logs in to, with keys and known_hosts of the tests' own."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway_process import poll
from tests.support.host_resources import free_port
from tests.support.processes import running

_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AcceptEnv none
"""


@dataclass(frozen=True)
class AdministratorLogin:
    """How root gets to the other host: `ssh` takes a destination and a command."""

    root: Path
    port: int

    def ssh(self, *, key: str = "admin", known_hosts: str = "known_hosts") -> str:
        options = [
            f"-p {self.port}", "-F none", f"-i {self.root / key}", "-o IdentitiesOnly=yes", "-o IdentityAgent=none",
            "-o BatchMode=yes", "-o StrictHostKeyChecking=yes", f"-o UserKnownHostsFile={self.root / known_hosts}",
            "-o LogLevel=ERROR",
        ]  # fmt: skip
        return f"ssh {' '.join(options)}"


@contextmanager
def administrator_login(root: Path) -> Iterator[AdministratorLogin]:
    """Run an sshd beside the block. Needs root, and sshd's own directory."""
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    for name in ("host_key", "other_host_key", "admin", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True, timeout=60)
    (root / "authorized_keys").write_text((root / "admin.pub").read_text())
    for known, key in (("known_hosts", "host_key"), ("false_hosts", "other_host_key")):
        (root / known).write_text(f"[127.0.0.1]:{port} {(root / f'{key}.pub').read_text()}")
    (root / "sshd_config").write_text(_CONFIG.format(port=port, root=root))
    Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    with (
        (root / "sshd.log").open("wb") as log,
        running([sshd, "-D", "-e", "-f", str(root / "sshd_config")], stdout=log, stderr=log, stdin=subprocess.DEVNULL),
    ):
        poll(lambda: _listens(port), f"the sshd (see {root / 'sshd.log'})")
        yield AdministratorLogin(root, port)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
