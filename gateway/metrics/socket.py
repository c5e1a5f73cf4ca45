"""Reaches the metrics of the gateway that serves, through its Unix socket."""

import http.client
import os
import socket
from pathlib import Path

from gateway.errors import EngineError

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 30.0


def connect(path: Path) -> socket.socket:
    """Return a connected, non-blocking stream to the metrics of the gateway that serves. Raises: EngineError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(_CONNECT_SECONDS)
    try:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        connection.setblocking(False)
    except OSError as exc:
        connection.close()
        raise _unanswered(exc) from exc
    return connection


def fetch(path: Path, accept: str) -> str:
    """Return what a scrape gets. Raises: EngineError `metrics.unanswered`."""
    connection = http.client.HTTPConnection("devgw", timeout=_ANSWER_SECONDS)
    connection.sock = connect(path)
    connection.sock.settimeout(_ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics", headers={"Accept": accept})
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as exc:
        raise _unanswered(exc) from exc
    finally:
        connection.close()


def _unanswered(exc: Exception) -> EngineError:
    reason = getattr(exc, "strerror", None) or exc
    return EngineError(
        "metrics.unanswered",
        f"the gateway's metrics do not answer just now: {reason}",
        "they are there while 'devgw serve' runs, for root and the gateway's own account",
    )
