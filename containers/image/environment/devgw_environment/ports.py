"""The ports listener: whoever connects to `ports.sock` names a port and is joined to what listens on loopback there.

It also holds the notebook's own port on both loopbacks, so that the same number means the same inside and outside.
"""

import contextlib
import errno
import os
import resource
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.forwards import Forward, Pipes
from devgw_environment.notebook_port import NotebookPort
from devgw_environment.proxy_port import ProxyPort
from devgw_environment.sockets import identify_file, open_listener

REQUEST_SECONDS = 5.0
CONNECT_SECONDS = 5.0
CHECK_SECONDS = 1.0
MOST_FORWARDS = 2048
DESCRIPTORS_A_FORWARD = 6
REQUEST_BYTES = 32
BACKLOG = 128

IPV4, IPV6 = (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")
HOSTS = {"localhost": (IPV4, IPV6), "127.0.0.1": (IPV4, IPV6), "::1": (IPV6, IPV4)}
"""Both loopbacks whatever was asked, the one that was named first."""

Address = tuple[socket.AddressFamily, object]


class Opening:
    """A connection whose request has not been answered yet."""

    def __init__(self, near: socket.socket, now: float) -> None:
        self.near = near
        self.far: socket.socket | None = None
        self.addresses: list[Address] = []
        self.deadline = now + REQUEST_SECONDS
        self.speaks = True
        """Whether it is answered in the words of the contract; the notebook's port just carries bytes."""


class PortsListener:
    """Accepts, reads requests, connects, and lets each forward take its turn; one process, one thread."""

    def __init__(self, environment: Environment) -> None:
        self.path = environment.ports_socket
        self.notebook_socket = environment.notebook_socket
        self.egress_socket = environment.egress_socket
        self.poller = select.epoll()
        self.pipes = Pipes()
        self.listeners: dict[int, tuple[socket.socket, Callable[[socket.socket], None]]] = {}
        self.openings: dict[int, Opening] = {}
        self.forwards: dict[int, Forward] = {}
        self.unfinished: dict[Forward, None] = {}
        """Forwards that have more to move and gave way to the others."""
        self.socket: socket.socket | None = None
        self.identity: tuple[int, int] | None = None
        self.notebook_port = NotebookPort(environment, self.listen, self.begin_notebook)
        self.proxy_port = ProxyPort(environment, self.listen, self.stop_listening, self.begin_egress)
        self.most = min(MOST_FORWARDS, (raise_descriptor_limit() - 64) // DESCRIPTORS_A_FORWARD)

    def run(self) -> None:
        """Serve until killed."""
        check_at = 0.0
        while True:
            now = time.monotonic()
            if now >= check_at:
                self.keep_sockets()
                self.give_up_openings(now)
                check_at = now + CHECK_SECONDS
            for descriptor, events in self.poller.poll(0 if self.unfinished else max(0.0, check_at - now)):
                self.handle(descriptor, events)
            for forward in list(self.unfinished):
                for descriptor in (forward.near.fileno(), forward.far.fileno()):
                    if self.forwards.get(descriptor) is forward:
                        self.take_turn(forward, descriptor)

    def handle(self, descriptor: int, events: int) -> None:
        """Something happened at a descriptor; one that was closed meanwhile is nobody's."""
        if forward := self.forwards.get(descriptor):
            forward.note(descriptor, events)
            self.take_turn(forward, descriptor)
        elif opening := self.openings.get(descriptor):
            self.go_on(opening, descriptor)
        elif found := self.listeners.get(descriptor):
            self.accept(*found)

    # Listening

    def keep_sockets(self) -> None:
        """Have the Unix socket in its place and the notebook's port where it is free."""
        if self.socket is None or identify_file(self.path) != self.identity:
            if self.socket is not None:
                self.stop_listening(self.socket)
            self.socket = open_listener(self.path, BACKLOG)
            self.identity = identify_file(self.path)
            self.listen(self.socket, self.begin)
            log_event("ports.opened", path=self.path)
        self.notebook_port.hold()
        self.proxy_port.hold()

    def listen(self, listener: socket.socket, begin: Callable[[socket.socket], None]) -> None:
        """Give connections of a listener to `begin`."""
        listener.setblocking(False)
        self.listeners[listener.fileno()] = listener, begin
        self.poller.register(listener.fileno(), select.EPOLLIN)

    def stop_listening(self, listener: socket.socket) -> None:
        """Close a listener; what it has accepted stays."""
        del self.listeners[listener.fileno()]
        listener.close()

    def accept(self, listener: socket.socket, begin: Callable[[socket.socket], None]) -> None:
        """Take one connection; over the limit it is told so and closed, so that nobody waits for nothing."""
        try:
            near, _ = listener.accept()
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                time.sleep(0.05)  # it is still readable: without a pause we would only spin
            return
        near.setblocking(False)
        if len(self.openings) + len(self.forwards) // 2 >= self.most:
            answer(near, b"-busy\n" if near.family == socket.AF_UNIX else b"")
            near.close()
            return
        begin(near)

    # Requests

    def begin(self, near: socket.socket) -> None:
        """Wait for a request: it may be here already."""
        opening = Opening(near, time.monotonic())
        self.openings[near.fileno()] = opening
        self.poller.register(near.fileno(), select.EPOLLIN | select.EPOLLET)

    def begin_notebook(self, near: socket.socket) -> None:
        """Join a connection to the notebook's port with the notebook's socket; it has nothing to ask."""
        self.join_socket(near, self.notebook_socket)

    def begin_egress(self, near: socket.socket) -> None:
        """Join a connection to the proxy's port with the gateway's socket."""
        self.join_socket(near, self.egress_socket)

    def join_socket(self, near: socket.socket, path: Path) -> None:
        """Join a connection with a Unix socket; it has nothing to ask of us."""
        opening = Opening(near, time.monotonic())
        opening.speaks = False
        opening.addresses = [(socket.AF_UNIX, str(path))]
        self.try_next(opening, "refused")

    def go_on(self, opening: Opening, descriptor: int) -> None:
        """Read the request, or look how the connecting went."""
        if opening.far is None:
            self.read_request(opening)
        elif descriptor == opening.far.fileno():
            self.look_at_connection(opening, opening.far)
        else:  # the client said more than its request, or left
            self.refuse(opening, "malformed")

    def read_request(self, opening: Opening) -> None:
        """Read `HOST PORT` and begin to connect."""
        try:
            line = opening.near.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            line = b""
        addresses = parse_request(line)
        if addresses is None:
            if line == b"notebook-port\n":
                self.refuse(opening, "taken") if self.notebook_port.is_taken() else self.refuse(opening, "held")
            else:
                self.refuse(opening, "malformed")
            return
        opening.addresses = addresses
        self.try_next(opening, "refused")

    def try_next(self, opening: Opening, failure: str) -> None:
        """Connect to the next address, or say how the last one failed."""
        self.drop_attempt(opening)
        if not opening.addresses:
            self.refuse(opening, failure)
            return
        family, address = opening.addresses.pop(0)
        opening.deadline = time.monotonic() + CONNECT_SECONDS
        try:
            far = opening.far = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError:
            self.try_next(opening, "unreachable")
            return
        if family != socket.AF_UNIX:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        problem = far.connect_ex(address)  # type: ignore[arg-type]  # of its family
        if problem not in (0, errno.EINPROGRESS):
            self.try_next(opening, "refused" if problem == errno.ECONNREFUSED else "unreachable")
        elif not self.look_at_connection(opening, far):  # on loopback mostly there already
            self.openings[far.fileno()] = opening
            self.poller.register(far.fileno(), select.EPOLLOUT)

    def look_at_connection(self, opening: Opening, far: socket.socket) -> bool:
        """Join the two when the connection stands, try the next when it failed; False while neither is known."""
        poll = select.poll()
        poll.register(far, select.POLLOUT)
        if not poll.poll(0):
            return False
        if far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or is_own_reflection(far):
            self.try_next(opening, "refused")
        else:
            self.join(opening, far)
        return True

    def join(self, opening: Opening, far: socket.socket) -> None:
        """Answer and begin to move bytes."""
        near = opening.near
        for sock in (near, far):
            if self.openings.pop(sock.fileno(), None):
                self.poller.unregister(sock.fileno())
        if opening.speaks and not answer(near, b"+"):
            near.close()
            far.close()
            return
        forward = Forward(near, far)
        self.forwards[near.fileno()] = self.forwards[far.fileno()] = forward
        forward.watch(self.poller)

    def refuse(self, opening: Opening, word: str) -> None:
        """Say why in the contract's words and close."""
        self.drop_attempt(opening)
        if opening.speaks:
            answer(opening.near, f"-{word}\n".encode())
        self.openings.pop(opening.near.fileno(), None)
        opening.near.close()

    def drop_attempt(self, opening: Opening) -> None:
        """Close a connection that came to nothing."""
        if opening.far is not None:
            self.openings.pop(opening.far.fileno(), None)
            opening.far.close()
            opening.far = None

    def give_up_openings(self, now: float) -> None:
        """End requests that do not come and connections that nobody answers."""
        for opening in set(self.openings.values()):
            if now > opening.deadline:
                if opening.far is None:
                    self.refuse(opening, "malformed")
                else:
                    self.try_next(opening, "timeout")

    # Moving

    def take_turn(self, forward: Forward, descriptor: int) -> None:
        """Let one forward move some bytes after an event at one of its sockets."""
        self.unfinished.pop(forward, None)
        try:
            over, more = forward.turn(descriptor, self.pipes, self.poller)
        except OSError as problem:  # no pipe to be had, say: it costs this forward, not the others
            log_event("ports.failed", reason=problem)
            over, more = True, False
        if over:
            for sock in (forward.near, forward.far):
                del self.forwards[sock.fileno()]
            forward.close(self.pipes)
        elif more:
            self.unfinished[forward] = None


def parse_request(line: bytes) -> list[Address] | None:
    """The addresses to try for `HOST PORT`; None when it is anything else."""
    host, _, rest = line.decode("latin-1").partition(" ")
    number = rest.removesuffix("\n")
    if host not in HOSTS or rest == number or not (number.isascii() and number.isdecimal() and len(number) <= 5):
        return None
    port = int(number)
    return [(family, (address, port)) for family, address in HOSTS[host]] if 0 < port < 65536 else None


def is_own_reflection(sock: socket.socket) -> bool:
    """Whether TCP connected a socket to itself: on a free port of the ephemeral range that happens (RFC 793 §3.4)."""
    try:
        return sock.family != socket.AF_UNIX and bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False


def answer(near: socket.socket, words: bytes) -> bool:
    """Send a few bytes, which an unused socket always takes; False when nobody is there any more."""
    with contextlib.suppress(OSError):
        return near.send(words) == len(words)
    return False


def raise_descriptor_limit() -> int:
    """As many descriptors as the hard limit gives; returns how many."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def run_ports_listener(environment: Environment) -> int:
    """Serve `ports.sock` until SIGTERM."""
    os.umask(0o077)
    PortsListener(environment).run()
    return 0
