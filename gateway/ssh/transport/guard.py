"""Bounds what one SSH connection may cost: asyncssh's connection with limits that it does not have itself.

Data is held back while the peer's TCP connection is full or keys are being exchanged, so a peer that stops reading
stops its own senders and nothing else. Which channels may be opened, and by whom, is decided elsewhere.
"""

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any, AnyStr, Final, cast

import asyncssh
from asyncssh.channel import SSHChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_OPEN, MSG_CHANNEL_OPEN_CONFIRMATION, MSG_GLOBAL_REQUEST, MSG_KEXINIT
from asyncssh.packet import SSHPacket

from gateway.ssh.transport.byte_budget import CONNECTION_BYTES, COPIES, WINDOW_MIN_BYTES, ByteBudget
from gateway.ssh.transport.channels import ForwardChannel, StreamlocalChannel
from gateway.ssh.transport.log_rate_limiter import LogRateLimiter
from gateway.ssh.transport.packet_floor import PacketFloor
from gateway.ssh.transport.request_queue import GlobalRequestQueue
from gateway.ssh.transport.turns import SLICE_SECONDS, turns_of
from gateway.ssh.transport.wire import Wire

INPUT_MAX_BYTES: Final = 512 << 10
"""Unprocessed input beyond which the socket is not read; a packet is at most 256 KiB."""
OUTPUT_HIGH_BYTES: Final = 256 << 10
"""Unsent output at which channels stop sending."""
OUTPUT_MAX_BYTES: Final = 1 << 20
"""Unsent output, replies included, at which the peer's requests are no longer read."""
LOGIN_MAX_BYTES: Final = 256 << 10
"""All a client may send before it has logged in; a login takes under 16 KiB."""
DEFERRED_MAX_PACKETS: Final = 1024
"""Packets that may wait for a key exchange to end."""
KEY_EXCHANGE_SECONDS: Final = 60.0
"""Time for a key exchange once begun."""
TIMER_SLACK_SECONDS: Final = 0.01
KEY_EXCHANGE_BURST: Final = 30
"""Key exchanges a peer may start at once; one more each second."""

_log = logging.getLogger(__name__)
_sparing = LogRateLimiter(60)


class ConnectionGuard(GlobalRequestQueue, PacketFloor, Wire):
    """The limits common to both directions: mixed in before an asyncssh connection class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received_bytes = 0
        self.sent_bytes = 0
        self._congested = False
        self._holds: set[str] = set()
        self._waiting: dict[SSHChannel[bytes], None] = {}
        self._exchanges_left = float(KEY_EXCHANGE_BURST)
        self._exchange_at = 0.0
        self._exchange_timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._turns = turns_of(self._loop)
        self._is_queued = False
        self.budget = ByteBudget()
        self.channel_window_bytes = 2 << 20
        self.connection_window_bytes = 32 << 20
        self._windows_bytes = 0
        self._is_counted = False

    # Receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the bounds of the transport's own buffer."""
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=OUTPUT_HIGH_BYTES)
        super().connection_made(transport)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take input, and stop reading while more than a few packets wait to be processed."""
        self.received_bytes += len(data)
        if not self._auth_complete and self.received_bytes > LOGIN_MAX_BYTES:
            self.give_up("too much data before login")
            return
        super().data_received(data, datatype)
        if len(self._inpbuf) > INPUT_MAX_BYTES:
            self._hold_reading("input")

    def _recv_data(self) -> None:
        if self._transport is None:
            return  # what a task waited to go on with, after the end
        if self._is_queued:
            return
        if self._turns.may_begin():
            self._process_slice()
        else:
            self._queue()

    def _process_slice(self) -> None:
        began = perf_counter()
        self._slice_ends = began + SLICE_SECONDS
        super()._recv_data()
        self._turns.spend(began)
        if self._slice_is_over:
            self._slice_is_over = False
            self._queue()
        elif self._holds and len(self._inpbuf) <= INPUT_MAX_BYTES:
            self._release_reading("input")

    def _queue(self) -> None:
        """Wait for the next slice; the socket is not read, so that its end comes behind what waits."""
        if self._transport is not None and self._inpbuf:
            self._is_queued = True
            self._hold_reading("turn")
            self._turns.queue(self)

    @property
    def payer(self) -> str:
        """Whose turn this connection takes: its user's; those who have not logged in share one."""
        return self._username if self._auth_complete else ""

    def take_turn(self) -> None:
        """Go on with what waits."""
        self._is_queued = False
        if self._transport is not None:
            self._process_slice()
            if not self._is_queued:
                self._release_reading("turn")

    def _reset_keepalive_timer(self) -> None:
        """Note that the peer lives; the timer looks when it fires, instead of being made anew for each packet."""
        self._heard_at = self._loop.time()

    def _keepalive_timer_callback(self) -> None:
        left = self._heard_at + self._keepalive_interval - self._loop.time()
        if left > TIMER_SLACK_SECONDS:
            self._keepalive_timer = self._loop.call_later(left, self._keepalive_timer_callback)
        else:
            super()._keepalive_timer_callback()

    def _hold_reading(self, why: str) -> None:
        if not self._holds and self._transport:
            self._transport.pause_reading()
        self._holds.add(why)

    def _release_reading(self, why: str) -> None:
        self._holds.discard(why)
        if not self._holds and self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    # Sending

    def may_send_data(self) -> bool:
        """Say whether channels may hand over data now; control messages always may."""
        return self._kex_complete and not self._congested

    def wait_to_send(self, channel: SSHChannel[bytes]) -> None:
        """Put a channel at the end of those that have data for a full connection."""
        self._waiting[channel] = None

    def has_none_waiting(self) -> bool:
        """Say whether no channel has data for the full connection: one may have a read's worth, to go on with."""
        return not self._waiting

    def pause_writing(self) -> None:
        """The transport's buffer is full: channels hold their data back."""
        self._congested = True

    def resume_writing(self) -> None:
        """The transport's buffer has drained: channels that waited go on, first come, first served."""
        self._congested = False
        self._release_reading("output")
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting and self.may_send_data():
            channel = next(iter(self._waiting))
            del self._waiting[channel]
            channel._flush_send_buf()  # noqa: SLF001 - the one seam through which asyncssh sends a channel's data

    def _send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        super()._send(data)
        self._heed_congestion()

    def _send_parts(self, parts: Sequence[bytes]) -> None:
        self.sent_bytes += sum(map(len, parts))
        super()._send_parts(parts)
        self._heed_congestion()

    def _heed_congestion(self) -> None:
        if self._congested and self._transport and self._transport.get_write_buffer_size() > OUTPUT_MAX_BYTES:
            self._hold_reading("output")

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send a packet, or keep it while keys are being exchanged, a bounded number of them."""
        super().send_packet(pkttype, *args, handler=handler)
        if len(self._deferred_packets) > DEFERRED_MAX_PACKETS:
            self.give_up("too many packets wait for a key exchange")

    # Exchanging keys

    def _send_kexinit(self) -> None:
        super()._send_kexinit()
        self._stop_exchange_timer()
        self._exchange_timer = self._loop.call_later(KEY_EXCHANGE_SECONDS, self.give_up, "key exchange took too long")

    def _send_deferred_packets(self) -> None:
        if self._kex_complete:
            self._stop_exchange_timer()
        super()._send_deferred_packets()
        self._serve_waiting()

    def _stop_exchange_timer(self) -> None:
        if self._exchange_timer:
            self._exchange_timer.cancel()
            self._exchange_timer = None

    def _limited_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        now = self._loop.time()
        refill = self._exchanges_left + (now - self._exchange_at)
        self._exchanges_left, self._exchange_at = min(float(KEY_EXCHANGE_BURST), refill) - 1, now
        if self._exchanges_left < 0:
            raise asyncssh.ProtocolError("Too many key exchanges")
        return self._process_kexinit(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012 - asyncssh dispatches by this table
        **SSHConnection._packet_handlers,  # noqa: SLF001 - the table this one stands before
        MSG_KEXINIT: _limited_kexinit,
        MSG_CHANNEL_OPEN: PacketFloor._roomy_open,  # noqa: SLF001 - the same class, by its part
        MSG_CHANNEL_OPEN_CONFIRMATION: PacketFloor._roomy_confirmation,  # noqa: SLF001 - likewise
        MSG_GLOBAL_REQUEST: GlobalRequestQueue._bounded_global_request,  # noqa: SLF001 - the same class, by its part
    }

    # Ending

    def is_ending(self) -> bool:
        """Say whether nothing can be sent any more."""
        return self._transport is None

    def give_up(self, why: str) -> None:
        """Cut the connection at once; what was not sent is lost."""
        self._force_close(asyncssh.ConnectionLost(why))

    def _force_close(self, exc: Exception | None) -> None:
        """Close after what is already in the transport's buffer, so that a reason given last still arrives."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        self._stop_exchange_timer()
        self._waiting.clear()
        self.forget_requests()
        if isinstance(exc, asyncssh.ConnectionLost):
            self._loop.call_soon(transport.abort)
        else:
            transport.close()
            self._loop.call_later(2.0, transport.abort)
        self._loop.call_soon(self._cleanup, exc)

    def internal_error(self, exc_info: Any = None, error_logger: Any = None) -> None:
        """End the connection on an exception; hostile input causes such, so the traceback is for debugging only."""
        import sys

        info = exc_info or sys.exc_info()
        kind = type(info[1]).__name__
        held_back = _sparing.tell(kind)
        if held_back is not None:
            _log.warning("an SSH connection ended by %s%s", kind, f", and {held_back} more since" if held_back else "")
        _log.debug("traceback of the error above", exc_info=info)
        super().internal_error(info, error_logger)

    # Channels

    def channel_ends(self, channel: SSHChannel[bytes]) -> None:
        """This side has closed a channel: the peer's answer is due. Where that is limited, a subclass does it."""

    def create_tcp_channel(
        self, encoding: str | None = None, errors: str = "strict", window: int = 0, max_pktsize: int = 32768
    ) -> asyncssh.SSHTCPChannel[bytes]:
        """Make a channel for direct-tcpip and forwarded-tcpip that honours the bounds."""
        self._update_recv_pktlen(max_pktsize)
        return ForwardChannel(self, self._loop, encoding, errors, self.window_for(window), max_pktsize)

    def create_unix_channel(
        self, encoding: str | None = None, errors: str = "strict", window: int = 0, max_pktsize: int = 32768
    ) -> asyncssh.SSHUNIXChannel[bytes]:
        """The same for streamlocal."""
        self._update_recv_pktlen(max_pktsize)
        return StreamlocalChannel(self, self._loop, encoding, errors, self.window_for(window), max_pktsize)

    # What may be kept for its user (ADR 0023)

    def count_in(self, budget: ByteBudget) -> None:
        """Spend from this budget from now on; no channel is open yet."""
        self.budget = budget
        self._is_counted = True
        budget.take(CONNECTION_BYTES)

    def window_for(self, asked: int = 0) -> int:
        """Return the receive window of the next channel; 0 asks for the usual one."""
        return max(WINDOW_MIN_BYTES, self.budget.first_window(self._most(asked or self.channel_window_bytes)))

    def next_window(self, window: int) -> int:
        """Return what the window becomes of a channel that has taken half of it on."""
        changed = self.budget.next_window(window, self._most(self.channel_window_bytes))
        self._count_window(changed - window)
        return changed

    def _most(self, asked: int) -> int:
        """Return the most that one channel of this connection may have."""
        return min(asked, (self.connection_window_bytes - self._windows_bytes) // 4)

    def _count_window(self, size: int) -> None:
        self._windows_bytes += size
        self.budget.take(size * COPIES)

    def add_channel(self, chan: SSHChannel[AnyStr]) -> int:
        """Take a channel, whose window counts from now on. Raises: asyncssh.ChannelOpenError."""
        number = super().add_channel(chan)
        self._count_window(chan.get_recv_window())
        return number

    def remove_channel(self, recv_chan: int) -> None:
        """Forget a channel, and its window."""
        self._count_window(-self._channels[recv_chan].get_recv_window())
        super().remove_channel(recv_chan)

    def _cleanup(self, exc: Exception | None) -> None:
        super()._cleanup(exc)
        for task in self._tasks:  # asyncssh lets them run on: whoever comes and goes would leave more and more
            task.cancel()
        if self._is_counted:
            self._is_counted = False
            self.budget.give(CONNECTION_BYTES)
