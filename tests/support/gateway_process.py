"""A whole gateway of the tests' own: the real command line, the real server, real OpenSSH clients, in one directory."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.host_resources import free_port, next_uid

_START_SECONDS = 60
_CLIENT_SECONDS = 120
_USERS = 8
"""How many uids one gateway is given; few tests make more users."""


def poll(condition: Any, what: str, seconds: float = 30) -> Any:
    """Return the condition's first true value. Raises: TimeoutError, naming what did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(f"{what} did not come within {seconds} s")


@dataclass
class GatewayProcess:
    """One gateway: `root` holds everything it and its users keep."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    uid_start: int = field(default_factory=lambda: next_uid(_USERS))
    server: "subprocess.Popen[bytes] | None" = None
    launcher: tuple[str, ...] = ()
    """A command that takes the server's as its arguments and becomes it."""

    @property
    def environ(self) -> dict[str, str]:
        own = {
            "DEVGW_CONFIG_DIR": str(self.root / "etc"),
            "DEVGW_STATE_DIR": str(self.root / "state"),
            "DEVGW_RUN_DIR": str(self.root / "run"),
            "DEVGW_CACHE_DIR": str(self.root / "cache"),
            "DEVGW_SERVER_LISTEN_ADDRESS": "127.0.0.1",
            "DEVGW_SERVER_PORT": str(self.port),
            "DEVGW_SERVER_PUBLIC_HOST": "127.0.0.1",
            "DEVGW_ENVIRONMENTS_UID_START": str(self.uid_start),
            "NO_COLOR": "1",
        }
        return os.environ | own | self.variables

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    def devgw(self, *arguments: str, stdin: str = "", expect: int | None = 0) -> "subprocess.CompletedProcess[str]":
        """Run the `devgw` command; `expect=None` leaves the exit code to the caller."""
        command = [sys.executable, "-m", "gateway", *arguments]
        done = subprocess.run(
            command, env=self.environ, input=stdin, capture_output=True, text=True, timeout=_CLIENT_SECONDS, check=False
        )
        assert expect is None or done.returncode == expect, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def devgw_json(self, *arguments: str) -> Any:
        """Run the command with `-o json` and return what it says."""
        return json.loads(self.devgw(*arguments, "-o", "json").stdout)

    def make_key(self, user: str) -> Path:
        """Make a key pair for a user, once; return the private key's path."""
        key = self.root / "keys" / user
        if not key.exists():
            key.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", user, "-f", str(key)], check=True, timeout=60
            )
        return key

    def create(self, user: str, *options: str) -> str:
        """Create a user's environment with their own key; return the notebook password."""
        key = self.make_key(user.partition("+")[0])
        made = self.devgw_json("create", user, "--key", f"{key}.pub", *options)
        return str(made["notebook_password"])

    def serve(self) -> None:
        """Start the server and wait until it greets."""
        self.begin()
        self.await_greeting()

    def begin(self) -> None:
        """Start the server."""
        log = self.log.open("ab")
        command = [*self.launcher, sys.executable, "-m", "gateway", "serve"]
        self.server = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, start_new_session=True)

    def await_greeting(self) -> None:
        """Wait until the server, which was begun, greets."""
        poll(self._greets, f"the server's greeting (see {self.log})", _START_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the server; return its exit code."""
        assert self.server is not None
        self.server.send_signal(how)
        code = self.server.wait(timeout=_START_SECONDS)
        self.server = None
        return code

    def client_options(self, user: str) -> list[str]:
        """Options every OpenSSH client of a user gets; nothing of this machine's own configuration is read."""
        return [
            "-F", "none", "-i", str(self.make_key(user.partition("+")[0])), "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={self.root / 'known_hosts'}", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30",
        ]  # fmt: skip

    def ssh_command(self, user: str, *arguments: str) -> list[str]:
        """Return the argv of `ssh user@gateway …`."""
        return ["ssh", *self.client_options(user), "-p", str(self.port), f"{user}@127.0.0.1", *arguments]

    def ssh(self, user: str, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run `ssh user@gateway …` to its end."""
        command = self.ssh_command(user, *arguments)
        return subprocess.run(command, input=stdin, capture_output=True, timeout=_CLIENT_SECONDS, check=False)

    def copy(
        self, program: str, user: str, *arguments: str, stdin: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run scp or sftp; `gateway:` in an argument stands for the user's side."""
        places = [argument.replace("gateway:", f"{user}@127.0.0.1:") for argument in arguments]
        command = [program, *self.client_options(user), "-P", str(self.port), *places]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=_CLIENT_SECONDS, check=False)

    @contextmanager
    def tunnel(self, user: str, remote: str = "localhost:8888") -> Iterator[int]:
        """Hold `ssh -N -L` open; yield the local port."""
        local = free_port()
        options = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:{remote}"]
        command = ["ssh", *self.client_options(user), *options, "-p", str(self.port), f"{user}@127.0.0.1"]
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            poll(lambda: _listens(local) or client.poll() is not None, "the tunnel")
            assert client.poll() is None, client.stderr.read().decode() if client.stderr else ""
            yield local
        finally:
            client.terminate()
            client.communicate(timeout=60)

    def close(self) -> None:
        """Stop the server and delete every environment this gateway made."""
        if self.server is not None and self.server.poll() is None:
            self.stop(signal.SIGKILL)
        for environment in self.devgw_json("list")["environments"]:
            self.devgw("delete", environment["handle"], "--force", "--purge", "--yes")

    def _greets(self) -> bool:
        if self.server is not None and self.server.poll() is not None:
            raise RuntimeError(self.log.read_text())
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
