"""An environment without a container engine, for tests of the gateway: the real sshd and a small notebook server.

It keeps the environment contract: `ssh.sock` starts `sshd -i` per connection as the image does, with the image's own
settings and start-up files of shells, `notebook.sock` speaks HTTP, `ports.sock`
is the image's own listener (a file `no-ports` in its directory leaves it out, as older images do). All run as an
ordinary user in namespaces of its own: its loopback is not the gateway's, and its processes end together, whoever else
on this host has the same uid or the same name. Needs root.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway.auth.authority import make_host_key
from tests.support.host_resources import next_uid

SERVICES = ("ssh", "notebook", "ports")
ACCOUNTS = Path("/etc")
"""Where the host's accounts stand."""
IMAGE = Path(__file__).resolve().parents[2] / "containers" / "image"
INSIDE = Path(__file__).with_name("environment_inside.py")


class SshEnvironment:
    """One user's environment; `start` and `stop` may alternate."""

    def __init__(self, user: str, user_ca_line: str) -> None:
        self.user = user
        self.uid = uid = next_uid()
        self.root = Path(tempfile.mkdtemp(prefix=f"devgw-{user}-", dir="/tmp"))  # sun_path is short
        self.home = self.root / "home"
        self.home.mkdir()
        private, self.host_key = make_host_key(f"{user}'s environment")
        host_key = self.root / "ssh_host_ed25519_key"
        host_key.write_text(private)
        host_key.chmod(0o600)
        (self.root / "ssh_user_ca.pub").write_text(user_ca_line + "\n")
        self._write_accounts()
        for name in ("environment", "rootfs"):
            shutil.copytree(IMAGE / name, self.root / "image" / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (self.root, self.home, host_key):
            os.chown(path, uid, uid)
        self._process: subprocess.Popen[bytes] | None = None

    def _write_accounts(self) -> None:
        """Put the user before the host's accounts: where names or numbers are the same, the first line counts."""
        own = {
            "passwd": f"{self.user}:x:{self.uid}:{self.uid}::{self.home}:/bin/bash\n",
            "group": f"{self.user}:x:{self.uid}:\n",
            "shadow": f"{self.user}:*:20000::::::\n",
        }
        hosts = {"passwd", "group"}
        for name, line in own.items():
            (self.root / name).write_text(line + ((ACCOUNTS / name).read_text() if name in hosts else ""))

    def start(self) -> None:
        """Start it and wait until both sockets answer."""
        if self._process is not None:
            return
        inside = [sys.executable, str(INSIDE), str(self.root), self.user, str(self.uid)]
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *inside]
        with (self.root / "inside.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 15
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the test environment did not start; it needs root and unshare(1)")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            for service in SERVICES if not (self.root / "no-ports").exists() else SERVICES[:2]:
                self.dial(service).close()
        except OSError:
            return False
        return True

    def dial(self, service: str) -> socket.socket:
        """Connect to one of its sockets."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(self.root / f"{service}.sock"))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def stop(self) -> None:
        """Kill it with all that runs in it."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # its first process ends at that, and all others with it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        for service in SERVICES:
            (self.root / f"{service}.sock").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)
