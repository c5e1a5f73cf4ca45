"""What an environment asks of the proxy, in HTTP/1.1: CONNECT, or a plain request with a whole URL (RFC 9110 §9.3.6).

h11 parses and writes; one request for each connection, so that nothing can hide behind the first.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from policies.egress_hosts import HTTPS_PORT, normal_host

HEAD_MAX = 16 << 10
HTTP_PORT = 80
_PORT_DIGITS = 5
_HEAD_CHUNK_BYTES = 4 << 10
"""h11 looks at the size of what is not whole yet: were all read at once, a head of any size would be whole."""
CHUNK_BYTES = 64 << 10
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"upgrade", b"host"}
)  # fmt: skip


class RequestError(Exception):
    """A request that this proxy does not serve, with the status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """Where to, and for a plain request what is sent there: its own head, made anew."""

    host: str
    port: int
    plain: h11.Request | None = None

    @property
    def is_tunnel(self) -> bool:
        return self.plain is None


class ClientSide:
    """The environment's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._is_answered = False

    async def read_request(self) -> ProxyRequest:
        """Read a request's head. Raises: RequestError; ConnectionError, when the client left without one."""
        event = await self._next_event(_HEAD_CHUNK_BYTES)
        if not isinstance(event, h11.Request):
            raise ConnectionResetError
        if event.method == b"CONNECT":
            host, port = _authority(event.target, None)
            return ProxyRequest(host, port)
        return _plain(event)

    async def read_body(self) -> h11.Data | h11.EndOfMessage:
        """Read the next part of a plain request's body. Raises: RequestError, ConnectionError."""
        event = await self._next_event()
        if isinstance(event, h11.Data | h11.EndOfMessage):
            return event
        raise ConnectionResetError

    async def accept_tunnel(self) -> bytes:
        """Answer a CONNECT with yes; return what the client sent already."""
        await self._next_event()  # the end of the request, which has no body
        self._is_answered = True
        self.writer.write(self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established")))
        await self.writer.drain()
        return bytes(self._http.trailing_data[0])

    async def refuse(self, status: int, reason: str) -> None:
        """Say no. Tools show the reason of the status line, browsers the body. Once answered it is too late."""
        if self._is_answered:
            return
        self._is_answered = True
        text = "devgw: " + reason.encode("ascii", "backslashreplace").decode()
        body = (text + "\n").encode()
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
        head = h11.Response(status_code=status, headers=headers, reason=text.encode())
        # a connection of its own: what the client sent may have left the other in disorder
        answer = h11.Connection(h11.SERVER)
        parts = [answer.send(part) or b"" for part in (head, h11.Data(data=body), h11.EndOfMessage())]
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def send_raw(self, data: bytes) -> None:
        """Pass on what the far side sent."""
        self._is_answered = True
        self.writer.write(data)
        await self.writer.drain()

    async def _next_event(self, read_bytes: int = CHUNK_BYTES) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                too_long = exc.error_status_hint == 431
                raise RequestError(431 if too_long else 400, f"this is no request to a proxy: {exc}") from exc
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self.reader.read(read_bytes))

    def _send(self, event: h11.Response) -> bytes:
        return self._http.send(event) or b""


def write_head(request: h11.Request) -> tuple[h11.Connection, bytes]:
    """Begin a plain request to the far side; return what frames its body, and its head."""
    connection = h11.Connection(h11.CLIENT)
    return connection, connection.send(request) or b""


def _plain(event: h11.Request) -> ProxyRequest:
    """Make a request for the origin of one for the proxy: the URL decides, whatever `Host` says (RFC 9112 §3.2.2)."""
    try:
        url = urlsplit(event.target.decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise RequestError(400, "this is no URL") from None
    if not url.scheme or not url.netloc:
        raise RequestError(400, "this is a proxy: ask for a whole URL, or with CONNECT")
    if url.scheme != "http":
        raise RequestError(400, f"a URL of {url.scheme!a} is asked for with CONNECT")
    host, port = _authority(url.netloc.encode(), HTTP_PORT)
    named = b",".join(value for name, value in event.headers if name == b"connection").lower().split(b",")
    dropped = _HOP_BY_HOP | {word.strip() for word in named}
    if any(name == b"transfer-encoding" for name, _value in event.headers):
        dropped |= {b"content-length"}  # RFC 9112 §6.3: it counts for nothing, and somebody may think otherwise
    kept = [(name, value) for name, value in event.headers if name not in dropped]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = [(b"Host", url.netloc.encode()), *kept, (b"Connection", b"close")]
    return ProxyRequest(host, port, h11.Request(method=event.method, target=target.encode(), headers=headers))


def _authority(text: bytes, port_if_none: int | None) -> tuple[str, int]:
    """Read `HOST:PORT`. Raises: RequestError; an address is refused here, because a name is what policies know."""
    host, colon, port = text.decode("latin-1").partition(":")
    is_complete = port.isdecimal() and len(port) <= _PORT_DIGITS if colon else port_if_none is not None
    if not is_complete:
        where = f"{text.decode('latin-1')[:80]!a}"
        raise RequestError(400, f"{where} is not NAME:PORT, such as pypi.org:{HTTPS_PORT}")
    name = normal_host(host)
    if name is None:
        raise RequestError(403, f"{host[:80]!a} is not the name of a host, and this proxy knows no addresses")
    return name, int(port) if colon else port_if_none or 0
