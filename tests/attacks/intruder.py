"""An SSH client that says what an honest one does not: requests of its own choice in the login, any bytes as a name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh
from asyncssh.auth import MSG_USERAUTH_PK_OK, ClientAuth
from asyncssh.packet import SSHPacket
from asyncssh.public_key import SSHKeyPair

from tests.fuzz.packets import string


@dataclass(frozen=True)
class LoginRequest:
    """One SSH_MSG_USERAUTH_REQUEST (RFC 4252 §5)."""

    name: str | bytes
    method: bytes
    rest: bytes = b""
    signer: SSHKeyPair | None = None


def key_pair(path: Path) -> SSHKeyPair:
    return asyncssh.load_keypairs(str(path))[0]


def probe(name: str | bytes, key: SSHKeyPair) -> LoginRequest:
    """Ask whether a key would do, without a signature."""
    return LoginRequest(name, b"publickey", b"\0" + string(key.algorithm) + string(key.public_data))


def signed(name: str | bytes, key: SSHKeyPair, *, by: SSHKeyPair | None = None) -> LoginRequest:
    """Log in with a key, signed by it or by another."""
    rest = b"\1" + string(key.algorithm) + string(key.public_data)
    return LoginRequest(name, b"publickey", rest, by or key)


class _Step(ClientAuth):
    """One request; what the gateway answers leads to the next."""

    def __init__(self, conn: Any, request: LoginRequest) -> None:
        self._request = request
        super().__init__(conn, request.method)

    async def _start(self) -> None:
        self._conn._username = self._request.name  # type: ignore[assignment]  # bytes too: RFC 4251's string
        await self.send_request(self._request.rest, key=self._request.signer, trivial=False)

    def _would_do(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        packet.get_remaining_payload()
        cast("Any", self._conn).try_next_auth()

    _packet_handlers = {MSG_USERAUTH_PK_OK: _would_do}  # noqa: RUF012 - asyncssh dispatches by this table


class Intruder(asyncssh.SSHClient):
    """Sends the given requests one after the other, then gives up."""

    def __init__(self, requests: Sequence[LoginRequest]) -> None:
        self._requests = list(requests)
        self.methods: list[bytes] = []

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        def go_on(*, next_method: bool = False) -> None:
            self.methods += conn._auth_methods
            if self._requests:
                conn._auth = _Step(conn, self._requests.pop(0))
            else:
                conn._force_close(asyncssh.PermissionDenied("nothing more to try"))

        conn.try_next_auth = go_on  # type: ignore[method-assign]


async def intrude(
    port: int, requests: Sequence[LoginRequest], source: str = "127.0.0.1"
) -> tuple[asyncssh.SSHClientConnection | None, Intruder]:
    """Return the connection where a request got in, and what was said until then."""
    intruder = Intruder(requests)
    factory: Callable[[], asyncssh.SSHClient] = lambda: intruder  # noqa: E731 - one object, seen afterwards
    try:
        connection = await asyncssh.connect(
            "127.0.0.1",
            port,
            local_addr=(source, 0),
            username="x",
            client_keys=None,
            known_hosts=None,
            config=None,
            client_factory=factory,
        )
    except (asyncssh.Error, ConnectionError):
        return None, intruder
    return connection, intruder
