"""Egress of one sandbox: none, or the internet through a user-mode network stack of its own. Never the host's network.

Each sandbox keeps its own network namespace with a stack (slirp4netns or pasta) behind its `eth0`; nobody can connect
to it. What its connections may reach is held by `packet_filter` inside that namespace.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.engines.packet_filter import confine_namespace, ipv4_rules, require_foreign, require_programs
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef

_MTU = 1500
_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_TUN = Path("/dev/net/tun")
_READY_SECONDS = 10.0
_POLL_SECONDS = 0.01
_DEFAULT_ROUTE = "eth0\t00000000"  # a line of /proc/net/route
_NOISE = ("WARNING", "Failed to send")  # pasta complains of each message that no syslog takes


@dataclass(frozen=True, slots=True)
class Stack:
    """A user-mode network stack for one sandbox. `network` is the first three bytes of its private IPv4 network."""

    program: str
    network: str
    egress: str

    @property
    def resolver(self) -> str:
        """The address at which the stack answers DNS, which it asks the host's resolvers."""
        return f"{self.network}.3"

    @property
    def is_slirp(self) -> bool:
        return Path(self.program).name == "slirp4netns"

    def command(
        self, user_namespace: int, network_namespace: int, ready: int, alive: int, *, stays_root: bool = False
    ) -> list[str]:
        """Return the command line that serves these namespaces, given as descriptors.

        `ready` is written to; the stack ends when the other end of `alive` is closed. `stays_root` is for pasta, which
        else becomes nobody, who may not enter a user's namespace.
        """
        user, net = f"/proc/self/fd/{user_namespace}", f"/proc/self/fd/{network_namespace}"
        if self.is_slirp:
            # its sandbox calls setegid(0), which works only for root: no plain user's namespace maps group 0
            confined = ["--enable-sandbox"] if os.geteuid() == 0 else []
            return [
                self.program, "--configure", f"--mtu={_MTU}", f"--cidr={self.network}.0/24", "--disable-host-loopback",
                *confined, "--enable-seccomp", f"--ready-fd={ready}", f"--exit-fd={alive}",
                "--netns-type=path", f"--userns-path={user}", net, "eth0",
            ]  # fmt: skip
        identity = ["--runas", "0:0"] if stays_root else []
        return [
            self.program, *identity, "--config-net", "--foreground", "--ns-ifname", "eth0", "--mtu", str(_MTU),
            "--ipv4-only", "--address", f"{self.network}.100", "--netmask", "24", "--gateway", f"{self.network}.2",
            "--dns-forward", self.resolver, "--no-map-gw",
            "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--quiet", "--userns", user, "--netns", net,
        ]  # fmt: skip


def find_stack(ref: EnvironmentRef, egress: Egress = Egress.INTERNET) -> Stack:
    """Return the stack for an environment. Raises: EngineError `egress.unavailable`, saying what to install."""
    program = shutil.which("slirp4netns") or shutil.which("pasta")
    if program is None:
        raise EngineError(
            "egress.unavailable",
            "egress 'internet' needs slirp4netns or pasta, and neither is installed",
            "'apt-get install slirp4netns', or create the environment with --egress none",
        )
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise EngineError(
            "egress.unavailable",
            f"egress 'internet' needs {_TUN}, which this user may not open",
            f"as root: 'modprobe tun && chmod 666 {_TUN}', or create the environment with --egress none",
        )
    require_programs()
    ipv4_rules(egress.rule)  # refuse here what could not be enforced at the start
    return Stack(program, _network_of(ref), str(egress))


def egress_note() -> str:
    """Say whether egress is possible, for the engine's report."""
    try:
        stack = find_stack(EnvironmentRef.parse("anyone"))
    except EngineError as exc:
        return exc.message
    return f"egress 'internet' goes through {Path(stack.program).name}"


def start(stack: Stack, pid: int, *, ids: tuple[int, int] | None) -> "subprocess.Popen[bytes]":
    """Connect a sandbox, and wait until it is.

    Raises: EngineError `egress.unavailable`, with the stack's words; `egress.unenforceable`.
    """
    become = ids if ids is not None and not stack.is_slirp and _may_open_tun(*ids) else None
    net = _network_namespace(pid)
    reading, ready = os.pipe()
    alive, _kept_open_until_we_end = os.pipe()
    words = os.memfd_create("words")  # of stderr alone: stdout has slirp4netns's banner
    user = fcntl.ioctl(net, _NS_GET_USERNS)  # not that of the process, which went into one below it
    try:
        process = subprocess.Popen(
            stack.command(user, net, ready, alive, stays_root=become is None and os.geteuid() == 0),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            pass_fds=[ready, user, net, alive],
            user=become[0] if become else None,
            group=become[1] if become else None,
            extra_groups=[] if become else None,
        )
        os.close(ready)
        if stack.is_slirp and os.read(reading, 1) != b"1":
            process.wait()
            raise _not_started(words)
        if not stack.is_slirp:
            _wait_for_route(process, pid, words)
        confine_namespace(net, "eth0", Egress(stack.egress), stack.resolver)  # the sandbox waits until we return
    finally:
        for descriptor in (reading, words, net, user, alive):
            os.close(descriptor)
    return process


def _network_namespace(pid: int) -> int:
    """Open a sandbox's network namespace; never the host's, where a number may have come to mean another process."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        require_foreign(namespace)
    except EngineError:
        os.close(namespace)
        raise
    return namespace


def _wait_for_route(process: "subprocess.Popen[bytes]", pid: int, words: int) -> None:
    """Wait until pasta, which tells nobody, has given the sandbox its way out. Raises: EngineError."""
    routes, deadline = Path(f"/proc/{pid}/net/route"), time.monotonic() + _READY_SECONDS
    while _DEFAULT_ROUTE not in routes.read_text():
        if process.poll() is not None:
            raise _not_started(words)
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise _not_started(words)
        time.sleep(_POLL_SECONDS)


def _not_started(words: int) -> EngineError:
    said = _last_words(words) or "it said nothing"
    return EngineError("egress.unavailable", f"the network stack did not start: {said}", "")


def _last_words(words: int) -> str:
    """Return the last lines that a program wrote on stderr, without its warnings where anything else was said."""
    size = os.fstat(words).st_size
    said = os.pread(words, 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
    return "; ".join(([line for line in said if not line.startswith(_NOISE)] or said)[-4:])


def _may_open_tun(uid: int, gid: int) -> bool:
    """Say whether a plain user may open the device; where only root may, root starts pasta.

    slirp4netns is always started by root where the gateway is: it then confines itself, whatever the device's mode.
    """
    found = _TUN.stat()
    mode = found.st_mode
    return bool(mode & 0o006 == 0o006 or (found.st_gid == gid and mode & 0o060 == 0o060) or found.st_uid == uid)


def _network_of(ref: EnvironmentRef) -> str:
    """Pick 10.x.y from the name, so that a person reading addresses can tell two environments apart."""
    digest = hashlib.sha256(f"{ref.user}.{ref.name}".encode()).digest()
    return f"10.{128 + digest[0] % 64}.{digest[1]}"
