"""asyncssh's channels with data held back while their connection is full, and bounded requests (RFC 4254 §5, §6)."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import asyncssh
from asyncssh.channel import (
    SSHAgentChannel,
    SSHChannel,
    SSHClientChannel,
    SSHServerChannel,
    SSHTCPChannel,
    SSHUNIXChannel,
)
from asyncssh.constants import MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import SSHPacket, UInt32

from gateway.ssh.transport.wire import Unlogged

REQUESTS_MAX: Final = 64
REQUESTS_MAX_BYTES: Final = 64 << 10
"""Channel requests that may wait for an answer: how many, and of how many bytes before the newest."""
VARIABLES_MAX: Final = 64
VARIABLES_MAX_BYTES: Final = 64 << 10
"""Environment variables of one session: how many, and names and values of all together."""

SEND_HIGH_BYTES: Final = 64 << 10
"""Unsent data of a channel at which its source stops, at most."""
PIECE_BYTES: Final = 8 << 10
"""To this size pieces of data that wait are put together."""
PIECES_MANY: Final = 64
"""From this many on, errors may be kept before output that came earlier: RFC 4254 promises no order between them."""
SIGNALS: Final = frozenset(
    {"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"}
    | {"INFO@openssh.com"}
)
"""The signals of RFC 4254 §6.10, and OpenSSH's own."""


class Congestible(Protocol):
    """What a channel asks of its connection."""

    def may_send_data(self) -> bool:
        """Say whether data may be handed over now."""

    def wait_to_send(self, channel: Any) -> None:
        """Be told when it may."""

    def has_none_waiting(self) -> bool:
        """Say whether no channel has data that waits."""

    def may_send_quickly(self) -> bool:
        """Say whether `send_data` may be used now."""

    def send_data(self, number: int, data: memoryview, packet_bytes: int) -> None:
        """Send data under the peer's number of the channel."""

    def next_window(self, window: int) -> int:
        """Return what the window becomes of a channel that has taken half of it on."""

    def channel_ends(self, channel: Any) -> None:
        """Be told that this side has closed a channel, or will when its data is sent; the peer's answer is due."""


class ChannelGuard(Unlogged, SSHChannel[bytes]):
    """Mixed in before an asyncssh channel class."""

    _held_bytes = 0
    """Received, and not handed on yet."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Let twice the channel's own window wait, for which the budget counts it, and 64 KiB at most."""
        own = min(SEND_HIGH_BYTES, 2 * self._init_recv_window)
        super().set_write_buffer_limits(own if high is None else high, low)

    def room(self) -> int:
        """Return how many bytes can be sent now, or may wait."""
        free = max(0, self._send_high_water - self._send_buf_len)
        is_next = self._may_send() or (self._conn is not None and cast("Congestible", self._conn).has_none_waiting())
        return free + self._send_window if is_next else free

    def process_open_confirmation(self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket) -> None:
        """Take the peer's yes; one that nobody waits for any more is answered by a close."""
        is_late = self._open_waiter is not None and self._open_waiter.cancelled()
        super().process_open_confirmation(send_chan, send_window, send_pktsize, packet)
        if is_late:
            self.abort()

    async def _open(self, chantype: bytes, *args: bytes) -> SSHPacket:
        """Ask the peer for a channel; whoever stops waiting for its answer leaves it as one that is owed."""
        try:
            return await super()._open(chantype, *args)
        except asyncio.CancelledError:
            self._ends()
            raise

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """Hand data on, and give the peer new window for what was handed on: never for what waits here.

        asyncssh renews the whole window with the first piece that is taken, so whoever takes one piece at a time would
        be sent a window for each.
        """
        self._held_bytes -= len(data)
        if (self._init_recv_window - self._recv_window - self._held_bytes) * 2 > self._init_recv_window:
            self._renew_window()
        if self._session is not None:
            cast("Any", self._session).data_received(data, datatype)

    def _renew_window(self) -> None:
        """Bring the peer's window to the size that the budget has for it now, less what waits here."""
        if self._conn is None:
            return
        self._init_recv_window = cast("Congestible", self._conn).next_window(self._init_recv_window)
        self.set_write_buffer_limits()
        if told := getattr(self._session, "window_changed", None):
            told(self._init_recv_window)
        due = self._init_recv_window - self._recv_window - self._held_bytes
        if due > 0:
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(due))
            self._recv_window += due

    def _may_send(self) -> bool:
        return self._conn is None or cast("Congestible", self._conn).may_send_data()

    def _flush_send_buf(self) -> None:
        if not self._send_buf or self._may_send():
            super()._flush_send_buf()
            return
        cast("Congestible", self._conn).wait_to_send(self)
        if self._session is not None:
            self._pause_resume_writing()

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send at once, without copying into the buffer, what the peer's window and the connection take."""
        if self._send_buf or self._send_state != "open" or len(data) > self._send_window or not self._may_send():
            self._write_later(data, datatype)
            return
        connection = cast("Congestible", self._conn)
        if datatype is None and self._send_chan is not None and connection.may_send_quickly():
            self._send_window -= len(data)
            connection.send_data(self._send_chan, memoryview(data), self._send_pktsize)
        else:
            super().write(data, datatype)

    def _write_later(self, data: bytes, datatype: int | None) -> None:
        """Put data behind what waits, small pieces together: a piece of one byte would take a hundred to keep."""
        if self._send_buf and self._send_state == "open" and data:
            last, kind = self._send_buf[-1]
            if kind == datatype and len(last) + len(data) <= PIECE_BYTES:
                last += data
                self._send_buf_len += len(data)
                self._flush_send_buf()
                return
        super().write(data, datatype)

    def _accept_data(self, data: bytes, datatype: int | None = None) -> None:
        """Take data; while nobody takes it on, keep small pieces together."""
        if not data or self._send_state in {"close_pending", "closed"}:
            return
        self._held_bytes += len(data)
        if self._recv_paused:
            for at in self._joinable():
                last, kind = self._recv_buf[at]
                if kind != datatype:
                    continue
                if len(last) + len(data) > PIECE_BYTES:
                    break  # no earlier piece of its kind may grow: its bytes would come before these
                self._recv_window -= len(data)
                self._recv_buf[at] = (b"".join((last, data)), kind)
                return
        super()._accept_data(data, datatype)

    def _joinable(self) -> range:
        """Return which of the pieces kept may grow: the last; of many the last two, for output and errors in turn."""
        count = len(self._recv_buf)
        return range(count - 1, max(count - (2 if count > PIECES_MANY else 1), 0) - 1, -1) if count else range(0)

    def close(self) -> None:
        """Close when what was written is sent."""
        super().close()
        self._ends()

    def abort(self) -> None:
        """Close at once."""
        super().abort()
        self._ends()

    def drop_unsent(self) -> None:
        """Send the close now, without the data that waits before it."""
        if self._send_state == "close_pending":
            self._close_send()

    def _ends(self) -> None:
        if self._conn is not None:
            cast("Congestible", self._conn).channel_ends(self)

    def take_data(self, data: bytes) -> None:
        """Take the data of one packet, as `_process_data` does."""
        if self._recv_state != "open":
            raise asyncssh.ProtocolError("Channel not open for sending")
        if len(data) > self._recv_window:
            raise asyncssh.ProtocolError("Window exceeded")
        window = self._recv_window - len(data)
        is_plain = self._send_state == "open" and not self._recv_paused and self._session is not None
        if is_plain and data and window * 2 >= self._init_recv_window:
            self._recv_window = window  # what `_accept_data` would do, in fewer calls
            cast("Any", self._session).data_received(data, None)
        else:
            self._accept_data(data)

    def _bounded_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        waiting = sum(len(waits.get_full_payload()) for _, waits, _ in self._request_queue)
        if len(self._request_queue) >= REQUESTS_MAX or waiting > REQUESTS_MAX_BYTES:
            raise asyncssh.ProtocolError("Too many channel requests")
        SSHChannel._process_request(self, pkttype, pktid, packet)  # noqa: SLF001 - the method this one stands before

    _packet_handlers = {**SSHChannel._packet_handlers, MSG_CHANNEL_REQUEST: _bounded_request}  # noqa: RUF012, SLF001 - asyncssh dispatches by this table


class ForwardChannel(ChannelGuard, SSHTCPChannel[bytes]):
    """direct-tcpip and forwarded-tcpip (RFC 4254 §7.2)."""


class StreamlocalChannel(ChannelGuard, SSHUNIXChannel[bytes]):
    """direct-streamlocal and forwarded-streamlocal (OpenSSH's PROTOCOL §2.4)."""


class AgentChannel(ChannelGuard, SSHAgentChannel):
    """auth-agent@openssh.com towards a user's client."""


class EnvironmentChannel(ChannelGuard, SSHClientChannel[bytes]):
    """A session channel towards an environment; its control messages wait, a few, while that does not read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._held: dict[str, Callable[[], None]] = {}

    def change_terminal_size(self, width: int, height: int, pixwidth: int = 0, pixheight: int = 0) -> None:
        """Pass the terminal's size on; of several that wait the last counts."""
        change = super().change_terminal_size
        self._control("window-change", lambda: change(width, height, pixwidth, pixheight))

    def send_signal(self, signal: str | int) -> None:
        """Pass a signal on that RFC 4254 §6.10 names, each name once while it waits; drop others."""
        if signal in SIGNALS:
            send = super().send_signal
            self._control(f"signal {signal}", lambda: send(signal))

    def send_break(self, msec: int) -> None:
        """Pass a break on (RFC 4335); of several that wait the last counts."""
        send = super().send_break
        self._control("break", lambda: send(msec))

    def _control(self, what: str, send: Callable[[], None]) -> None:
        if self._send_chan is None or self._conn is None:
            return  # it is closed already
        if self._may_send():
            send()
        else:
            self._held[what] = send
            cast("Congestible", self._conn).wait_to_send(self)

    def _flush_send_buf(self) -> None:
        if self._held and self._may_send() and self._send_chan is not None:
            held, self._held = self._held, {}
            for send in held.values():
                send()
        super()._flush_send_buf()


class SessionChannel(ChannelGuard, SSHServerChannel[bytes]):
    """A session channel towards a user (RFC 4254 §6)."""

    def _process_env_request(self, packet: SSHPacket) -> bool:
        """Take a bounded number of variables; which of them pass is decided when the session starts (RFC 4254 §6.4)."""
        key, value = packet.get_string(), packet.get_string()
        packet.check_end()
        held = sum(len(name) + len(text) for name, text in self._env.items()) + len(key) + len(value)
        if len(self._env) >= VARIABLES_MAX or held > VARIABLES_MAX_BYTES or b"\0" in key + value:
            return False
        self._env[key] = value
        return True

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Take any bytes as a command: file names of `scp -O` need not be UTF-8."""
        command = packet.get_string()
        packet.check_end()
        if b"\0" in command:
            return False
        return self._start_session(command=command.decode("utf-8", "surrogateescape"))

    def _process_auth_agent_req_at_openssh_dot_com_request(self, packet: SSHPacket) -> None:
        """Ask the session, never make a socket on the gateway as asyncssh would; the answer comes later."""
        packet.check_end()
        asker = getattr(self._session, "agent_requested", None)
        self._conn.create_task(self._answer_agent(asker), self.logger)

    async def _answer_agent(self, asker: Any) -> None:
        allowed = bool(asker and await asker())
        if self._request_queue:
            self._report_response(allowed)

    def _process_x11_req_request(self, packet: SSHPacket) -> bool:  # noqa: ARG002 - refused whatever it holds
        """Refuse X11: its socket would stand on the gateway."""
        note = getattr(self._session, "x11_refused", None)
        if note:
            note()
        return False
