"""What is compared, side by side on one machine: the gateway, OpenSSH's bastion, and OpenSSH without one.

All three lead to the same program behind the notebook port and to an sshd of the same version as the same user.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import policies
from gateway.auth.authority import ensure_key
from tests.support.host_resources import free_port
from tests.support.ssh_clients import is_listening, poll
from tests.support.ssh_environment import SshEnvironment

ROUTES = ("devgw", "jump", "direct")

_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/sshd_host_key
AuthorizedKeysFile {root}/alice.pub
AuthenticationMethods publickey
UsePAM no
PidFile none
StrictModes no
MaxSessions 1000
MaxStartups 5000
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
"""

_CLIENT = """
Host *
  User alice
  HostName 127.0.0.1
  IdentityFile {root}/alice
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {root}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking accept-new
  BatchMode yes
  LogLevel ERROR
Host devgw
  Port {devgw}
Host bastion
  Port {bastion}
Host jump
  Port {inner}
  ProxyJump bastion
Host direct
  Port {inner}
"""


@dataclass(frozen=True)
class Rig:
    """Running servers and how to reach them."""

    root: Path
    pids: dict[str, int]
    notebook: dict[str, int]
    """The port that means the streaming program, seen from the end of each route."""
    ports: dict[str, int]
    inside: int
    """The port of the same program on the environment's own loopback."""

    def servers(self, route: str, *, notebook: bool = False) -> list[int]:
        """Return the processes that carry a route's bytes; the notebook's go past the environment's processes."""
        named = {"devgw": ["devgw"] if notebook else ["devgw", "environment"], "direct": ["inner"]}
        return [self.pids[name] for name in named.get(route, ["bastion", "inner"])]

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return a command line of ssh, scp or sftp."""
        return [program, "-F", str(self.root / "ssh_config"), *arguments]

    def target(self, route: str, *, inside: bool = False) -> int:
        """Return the port that means the streaming program; `inside` is the one that is not the notebook's."""
        return self.inside if inside and route == "devgw" else self.notebook[route]

    @contextmanager
    def tunnel(self, route: str, *options: str, inside: bool = False) -> Iterator[int]:
        """Forward a local port to the streaming program; yield the port."""
        port = free_port()
        forward = f"127.0.0.1:{port}:localhost:{self.target(route, inside=inside)}"
        command = self.command("ssh", "-N", "-L", forward, "-o", "ExitOnForwardFailure=yes", *options, route)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            poll(lambda: is_listening(port), f"the tunnel through {route}", 30)
            yield port
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def rig() -> Iterator[Rig]:
    """Start everything; needs root and unshare(1)."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="devgw-bench-", dir="/tmp")))
        root.chmod(0o755)
        for name in ("alice", "sshd_host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True, timeout=60
            )
        environment = SshEnvironment("alice", ensure_key(root / "user_ca", "gateway user CA"))
        stack.callback(environment.remove)
        environment.start()
        assert environment._process
        stream, stream_port = _started(stack, "stream", str(root / "stream.sock"))
        enter = ("nsenter", "--net", "--target", str(environment._process.pid))
        _, inside = _started(stack, "stream", str(root / "inside.sock"), before=enter)
        sockets = {name: str(environment.root / f"{name}.sock") for name in ("ssh", "ports")}
        sockets["notebook"] = str(root / "stream.sock")
        (root / "environment.json").write_text(json.dumps({"sockets": sockets, "host_key": environment.host_key}))
        shipped = (Path(policies.__file__).parent / "default.toml").read_text()
        (root / "policy.toml").write_text(shipped.replace("max_connections = 16", "max_connections = 5000"))
        gateway, gateway_port = _started(stack, "gateway_under_test", str(root))
        bare, bare_port = _started(stack, "gateway_under_test", str(root), "bare")
        pids = {"devgw": gateway, "bare": bare, "environment": environment._process.pid, "stream": stream}
        ports = {"devgw": gateway_port, "bare": bare_port}
        for name in ("bastion", "inner"):
            pids[name], ports[name] = _sshd(stack, root, environment.root, name)
        (root / "ssh_config").write_text(_CLIENT.format(root=root, **ports))
        yield Rig(root, pids, {"devgw": 8888, "jump": stream_port, "direct": stream_port}, ports, inside)


def _started(stack: ExitStack, module: str, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, int]:
    """Start one of this package's programs; return its process id and the port that it prints."""
    command = [*before, sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    assert process.stdout
    return process.pid, int(process.stdout.readline())


def _sshd(stack: ExitStack, root: Path, accounts: Path, name: str) -> tuple[int, int]:
    """Start an ordinary sshd on loopback that knows alice, in a mount namespace for her account's sake.

    As the first process of a pid namespace it inherits what its monitors leave behind, so no processor time is lost.
    """
    port = free_port()
    config = root / f"sshd_{name}"
    config.write_text(_SSHD.format(root=root, port=port))
    script = (
        f"for name in passwd group shadow; do mount --bind {accounts}/$name /etc/$name || exit 1; done; "
        f"mkdir -p /run/sshd && exec /usr/sbin/sshd -D -f {config}"
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--", "sh", "-c", script], stdin=subprocess.DEVNULL
    )
    stack.callback(process.wait, 10)
    stack.callback(process.kill)  # takes the sshd along; unshare itself ignores SIGTERM
    poll(lambda: is_listening(port), f"the {name} sshd")
    return process.pid, port
