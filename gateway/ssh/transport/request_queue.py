"""Bounds the global requests that a peer may have open (RFC 4254 §4): asyncssh queues them without an end.

Beyond the bound nothing more is read from the peer until enough of them are answered, so none is lost.
"""

import asyncio
from typing import Any, Final

from asyncssh.connection import SSHConnection
from asyncssh.packet import SSHPacket

GLOBAL_REQUESTS_MAX: Final = 64
"""Global requests that may wait for their answer; `ssh` with many `-R` sends one for each, all at once."""
GLOBAL_REQUESTS_MAX_BYTES: Final = 64 << 10
"""What they may hold together; one packet more may stand behind it."""


class GlobalRequestQueue(SSHConnection):
    """Mixed in before an asyncssh connection class, which dispatches to `_bounded_global_request`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._requests_bytes = 0
        self._requests_room: asyncio.Future[None] | None = None

    def _bounded_global_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """Take a request; where that fills the queue, an awaitable, behind which asyncssh processes no packet."""
        self._requests_bytes += len(packet.get_full_payload())
        self._process_global_request(pkttype, pktid, packet)
        if not self._is_full():
            return True
        self._requests_room = self._loop.create_future()
        return self._wait_for_room(self._requests_room)

    @staticmethod
    async def _wait_for_room(room: "asyncio.Future[None]") -> None:
        await room

    def _is_full(self) -> bool:
        return (
            len(self._global_request_queue) >= GLOBAL_REQUESTS_MAX or self._requests_bytes > GLOBAL_REQUESTS_MAX_BYTES
        )

    def _report_global_response(self, result: bool | bytes) -> None:
        self._requests_bytes -= len(self._global_request_queue[0][1].get_full_payload())
        super()._report_global_response(result)
        if self._requests_room and not self._is_full():
            self.forget_requests()

    def forget_requests(self) -> None:
        """Let packets be processed again: there is room, or the connection is gone."""
        room, self._requests_room = self._requests_room, None
        if room and not room.done():
            room.set_result(None)
