"""Decides at accept time which TCP connections are talked to: MaxStartups, per-source limits, bans and draining.

Whoever is turned away is told why in an SSH disconnect message (RFC 4253 §11.1), which costs no key exchange.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from gateway.auth.throttle import Throttle
from gateway.config import SshSettings
from gateway.ssh.descriptors import may_accept
from gateway.ssh.proxy_protocol import read_header
from gateway.ssh.startup_queue import StartupQueue, Waiting
from policies.addresses import Network, holds

TURN_AWAY_SECONDS = 2.0
HEADER_SECONDS = 5.0
"""In which a balancer says whose connection it hands on."""
HEARD_MAX_BYTES = 16 << 10
"""Of a client that waits; none says so much before it is answered."""
VERSION = "devgw"
NO_DESCRIPTORS = "the gateway has no room for more connections; try again later"
_DISCONNECT_TOO_MANY_CONNECTIONS = 12


class Admission:
    """Counts connections by state and source. Lives on the event loop.

    MaxStartups is for strangers: where a user has proved a key, only the limits of that address hold, so that nobody
    elsewhere can take the places of those who work.
    """

    def __init__(self, settings: SshSettings, throttle: Throttle, chance: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._throttle = throttle
        self._chance = chance
        self._startups: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self._startups_total = 0
        self.queue = StartupQueue()
        self.draining = False

    def why_not(self, address: str) -> str | None:
        """Return why an address is turned away now, or None."""
        return self._why_never(address) or self._why_not_yet(address)

    def _why_never(self, address: str) -> str | None:
        """Return what waiting for other logins would not change."""
        if self.draining:
            return "this gateway is shutting down; connect again"
        verdict = self._throttle.verdict(address)
        if verdict.tries == "none":
            return f"too many failed logins from {address}; try again in {verdict.ban_left_seconds:.0f} s"
        if self._connections[address] >= self._settings.per_source_max_connections:
            return f"too many connections from {address}"
        return None

    def _why_not_yet(self, address: str) -> str | None:
        if self._startups[address] >= self._settings.per_source_max_startups:
            return f"too many connections from {address} that have not logged in"
        if self._throttle.is_shared(address):
            return None
        return "the gateway is busy; try again" if self._drop_early() else None

    def _drop_early(self) -> bool:
        """Sshd's MaxStartups: from `begin` on with a chance that grows from `rate` to 100 at `full`."""
        limit, count = self._settings.max_startups, self._startups_total
        if count < limit.begin:
            return False
        if count >= limit.full:
            return True
        share = (count - limit.begin) / (limit.full - limit.begin)
        return self._chance() * 100 < limit.rate_percent + (100 - limit.rate_percent) * share

    def may_wait(self, address: str) -> bool:
        """Say whether a connection that would be turned away may wait for logins from there that are under way."""
        is_burst = self._why_never(address) is None and self._startups[address] > 0
        return is_burst and self.queue.has_room(address, is_known=self._throttle.is_shared(address))

    def _serve_waiting(self, address: str) -> None:
        """A login from here has ended: who waits behind it goes on, or hears why not where no key was proved."""
        while waiting := self.queue.first(address):
            if never := self._why_never(address):
                self.queue.refuse(waiting, never)
            elif not self._throttle.is_shared(address):
                self.queue.refuse(waiting)
            elif self._why_not_yet(address) is None:
                self.queue.leave(waiting)
                waiting.go_on()
            else:
                return

    def drain(self) -> None:
        """Take nobody any more, nor who waits."""
        self.draining = True
        for address in self.queue.addresses():
            self._serve_waiting(address)

    def has_descriptors(self, address: str, descriptor: int) -> bool:
        """Say whether a connection from here may keep its own."""
        return may_accept(descriptor, is_known=self._throttle.is_shared(address))

    def enter(self, address: str, descriptor: int = -1) -> "Admitted":
        """Count a connection until it is closed."""
        self._connections[address] += 1
        self._startups[address] += 1
        self._startups_total += 1
        return Admitted(self, address, descriptor)

    def logged_in(self, address: str) -> None:
        """Count it no longer as one that has not logged in."""
        self._startups_total -= 1
        _take(self._startups, address)
        self._serve_waiting(address)

    def left(self, address: str) -> None:
        """Forget a closed connection."""
        _take(self._connections, address)


def _take(counter: "Counter[str]", address: str) -> None:
    counter[address] -= 1
    if counter[address] <= 0:
        del counter[address]


class Admitted:
    """One connection's place; each step is counted once whatever order things end in."""

    def __init__(self, admission: Admission, address: str, descriptor: int) -> None:
        self._admission = admission
        self.address = address
        self.descriptor = descriptor
        self._is_startup = True
        self._is_open = True

    def logged_in(self) -> None:
        if self._is_startup:
            self._is_startup = False
            self._admission.logged_in(self.address)

    def left(self) -> None:
        if self._is_open:
            self._is_open = False
            self.logged_in()
            self._admission.left(self.address)


class Accepted(Protocol):
    """The SSH connection made for an admitted TCP connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk."""


class AcceptProtocol(asyncio.Protocol):
    """The first protocol of every accepted connection: hands it on, lets it wait or turns it away."""

    def __init__(
        self,
        admission: Admission,
        accept: Callable[[Admitted], asyncio.Protocol],
        balancers: tuple[Network, ...] = (),
    ) -> None:
        """`balancers` are the networks whose word is taken for whom a connection is from."""
        self._admission = admission
        self._accept = accept
        self._balancers = balancers
        self._header_timer: asyncio.TimerHandle | None = None
        self._waiting: Waiting | None = None
        self._stream: asyncio.Transport | None = None
        self._heard = b""
        self._peer = ""
        self._descriptor = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        peer = stream.get_extra_info("peername")
        if not peer:  # the client was gone before it was accepted
            stream.abort()
            return
        sock = stream.get_extra_info("socket")
        self._stream = stream
        self._peer = str(peer[0])
        self._descriptor = sock.fileno() if sock is not None else -1
        if self._balancers and holds(self._balancers, self._peer):
            self._header_timer = asyncio.get_running_loop().call_later(HEADER_SECONDS, stream.abort)
        else:
            self._begin(stream, self._peer)

    def _begin(self, stream: asyncio.Transport, address: str) -> None:
        reason = self._admission.why_not(address)
        if not self._admission.has_descriptors(address, self._descriptor):
            self._turn_away(stream, NO_DESCRIPTORS)
        elif reason is None:
            self._go_on(stream, address)
        elif self._admission.may_wait(address):
            self._waiting = Waiting(
                address, reason, partial(self._turn_away, stream), partial(self._go_on, stream, address)
            )
            self._admission.queue.enter(self._waiting)
        else:
            self._turn_away(stream, reason)

    def data_received(self, data: bytes) -> None:
        """Keep what a client says while it waits: its version and first packet (RFC 4253 §4.2, §7.1), no more."""
        self._heard += data
        if self._header_timer and self._stream:
            self._read_header(self._stream)
        elif self._stream and len(self._heard) > HEARD_MAX_BYTES:
            self._stream.abort()

    def _read_header(self, stream: asyncio.Transport) -> None:
        """Begin once the balancer has said whose connection this is; who says nothing of the kind is cut."""
        try:
            header = read_header(self._heard)
        except ValueError:
            stream.abort()
            return
        if header is not None and self._header_timer:
            self._header_timer.cancel()
            self._header_timer, self._heard = None, self._heard[header.length :]
            self._begin(stream, header.address or self._peer)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._header_timer:
            self._header_timer.cancel()
        if self._waiting:
            self._admission.queue.leave(self._waiting)

    def _go_on(self, stream: asyncio.Transport, address: str) -> None:
        self._hand_over(stream, self._accept(self._admission.enter(address, self._descriptor)))

    def _turn_away(self, stream: asyncio.Transport, reason: str) -> None:
        self._hand_over(stream, TurnedAway(reason))

    def _hand_over(self, stream: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        if self._heard:
            heard, self._heard = self._heard, b""
            protocol.data_received(heard)


class TurnedAway(asyncio.Protocol):
    """Says why and waits a moment for the client to read it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(f"SSH-2.0-{VERSION}\r\n".encode() + disconnect_packet(self._reason))
        stream.write_eof()
        self._timer = asyncio.get_running_loop().call_later(TURN_AWAY_SECONDS, stream.abort)

    def data_received(self, data: bytes) -> None:
        """Drop what the client says; the timer bounds how long."""

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()


def disconnect_packet(reason: str) -> bytes:
    """Return an unencrypted SSH_MSG_DISCONNECT (RFC 4253 §6, §11.1)."""
    text = reason.encode()
    payload = b"\x01" + _DISCONNECT_TOO_MANY_CONNECTIONS.to_bytes(4, "big")
    payload += len(text).to_bytes(4, "big") + text + b"\0\0\0\0"
    padding = 8 - (5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    return (1 + len(payload) + padding).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)
