"""One TCP connection of a browser: the gateway's line that says whose it is, then HTTP."""

import asyncio
from collections import Counter
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.errors import AuthError
from gateway.page.claim import LINE_MAX, read_claim
from gateway.page.web.viewer import Viewer

_CLAIM_SECONDS = 5.0
CONNECTIONS_EACH = 64
"""Of one user at a time: a browser opens six for each tab's host, and nobody may take the room of all."""
_open: Counter[str] = Counter()


class ClaimedConnection(H11Protocol):
    """uvicorn's connection, which begins with a claim; without one it ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._line: bytearray | None = bytearray()
        self._user = ""
        self._patience = self.loop.call_later(_CLAIM_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        if self._user:
            _open[self._user] -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._line is None:
            super().data_received(data)
            return
        self._line += data
        line, newline, rest = bytes(self._line).partition(b"\n")
        if not newline:
            if len(self._line) > LINE_MAX:
                self.transport.abort()
            return
        self._patience.cancel()
        self._line = None
        try:
            viewer = viewer_of(line.decode("ascii"))
        except (AuthError, UnicodeDecodeError):
            self.transport.abort()
            return
        if _open[viewer.user] >= CONNECTIONS_EACH:
            self.transport.abort()
            return
        self._user = viewer.user
        _open[self._user] += 1
        self.app_state = cast("dict[str, Any]", {**self.app_state, "viewer": viewer})
        self.client = (viewer.address, 0)
        if rest:
            super().data_received(rest)


def viewer_of(line: str) -> Viewer:
    """Read who looks. Raises: AuthError."""
    claim = read_claim(line)
    subject = claim.subject
    return Viewer(
        user=subject.user,
        key=subject.key_fingerprint,
        address=subject.address,
        environment=claim.environment,
        connection=claim.connection,
        secret=claim.secret,
        claim=line,
    )
