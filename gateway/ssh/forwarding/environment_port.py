"""A port of an environment's loopback, reached through `ports.sock` (docs/reference/environment-contract.md).

One decryption and no inner SSH connection: what answers inside is joined to this socket by the environment itself.
"""

import asyncio
import select
import socket
from collections.abc import Callable

import asyncssh

from gateway.ssh.transport.relay import SocketEnd

_REFUSAL_MAX = 64
_REFUSALS = {
    b"-refused": "nothing listens on this port in your environment",
    b"-timeout": "what listens on this port in your environment does not answer",
    b"-busy": "too many forwards are open in your environment",
}
_OTHER = "your environment does not answer there"
RESET = "reset by the service in the environment"


class PortEnd(SocketEnd):
    """The socket of one forward: it asks, waits for the answer, and is an end of a relay from then on.

    It tells a service that ended its output from one that reset its connection.
    """

    def __init__(self, count: Callable[[int], None], host: str, port: int) -> None:
        super().__init__(count)
        self._request = f"{host.lower()} {port}\n".encode()
        self._answer = b""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self) -> None:
        """Send the request and wait for its answer.

        Not before the transport owns its socket, which uvloop sees to after `connection_made`: were it closed earlier,
        by a refusal, the socket object would later close a descriptor that is somebody else's by then.
        """
        self.write(self._request)
        self._read_on()

    def data_received(self, data: bytes) -> None:
        if self.answered.done():
            super().data_received(data)
        elif not self._answer and data.startswith(b"+"):
            self.pause_reading()
            self.answered.set_result(None)
            super().data_received(data[1:])  # what the service said at once is kept until somebody takes it
        else:
            self._answer = (self._answer + data)[:_REFUSAL_MAX]
            if b"\n" in self._answer or len(self._answer) == _REFUSAL_MAX:
                self._refused()

    def _refused(self) -> None:
        """Take it for a no; the words that are shown are ours."""
        if not self.answered.done():
            words = _REFUSALS.get(self._answer.strip(), _OTHER)
            self.answered.set_exception(asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, words))

    def eof_received(self) -> bool:
        if not self.answered.done():
            self._refused()
            return False
        if self._hung_up():
            self.ended_by = RESET
            return False  # the transport closes, and with it the channel, without an EOF
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused()
        super().connection_lost(exc)

    def _hung_up(self) -> bool:
        """Say whether the environment closed instead of ending its direction; unknown once we have ended ours."""
        if self._transport is None or self._eof_sent:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))


async def connect_port(sock: socket.socket, host: str, port: int, count: Callable[[int], None]) -> PortEnd:
    """Ask for a port over a fresh connection to `ports.sock`. Raises: asyncssh.ChannelOpenError, OSError."""
    loop = asyncio.get_running_loop()
    _, end = await loop.create_unix_connection(lambda: PortEnd(count, host, port), sock=sock)
    try:
        end.ask()
        await end.answered
    except BaseException:
        end.close()
        raise
    return end
