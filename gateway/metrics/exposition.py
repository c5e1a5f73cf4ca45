"""Answers HTTP on a Unix socket with the metrics: the text or OpenMetrics, plain or gzip, as the client asks.

Whoever may connect may read: the socket is its owner's alone, and nothing here listens on a network.
"""

import gzip
import logging
import os
import socketserver
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from gateway.version import VERSION

ANSWER_SECONDS = 60.0
"""How long a client may be silent; longer than Prometheus' interval, so that one connection serves many scrapes."""
CLIENTS_MAX = 64
_GZIP_LEVEL = 1
_PATHS = frozenset({"/", "/metrics"})
_log = logging.getLogger(__name__)


class MetricsServer:
    """The socket, as long as the process has the duties."""

    def __init__(self, path: Path, registry: CollectorRegistry) -> None:
        self._path = path
        self._registry = registry
        self._server: _Server | None = None

    def start(self) -> None:
        """Listen in the place of whoever listened there before. Raises: OSError."""
        self._server = _Server(self._path, self._registry)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, path: Path, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._path = path
        self._fresh = path.with_name(f".{path.name}.{os.getpid()}")
        self._inode = 0
        self._room = threading.BoundedSemaphore(CLIENTS_MAX)
        super().__init__(str(path), _Handler)

    def server_bind(self) -> None:
        """Bind under a name of its own; by descriptor, for the path may be longer than a socket's may be (unix(7))."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fresh.unlink(missing_ok=True)
        directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.socket.bind(f"/proc/self/fd/{directory}/{self._fresh.name}")
        finally:
            os.close(directory)

    def server_activate(self) -> None:
        """Listen, and only then take the place: who connects is answered, by this one or the one before."""
        self._fresh.chmod(0o600)
        super().server_activate()
        self._inode = self._fresh.stat().st_ino
        self._fresh.replace(self._path)

    def server_close(self) -> None:
        super().server_close()
        with suppress(OSError):  # a successor's stays
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - both are nobody's
        _log.warning("a request for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = f"devgw/{VERSION}", ""
    protocol_version = "HTTP/1.1"
    timeout = ANSWER_SECONDS

    def do_GET(self) -> None:
        """Answer a scrape."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the text."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] not in _PATHS:
            self.send_error(HTTPStatus.NOT_FOUND, explain="the metrics are at /metrics")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Vary", "Accept, Accept-Encoding")
        if _takes_gzip(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, _GZIP_LEVEL)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        """Say nothing: a scrape each quarter of a minute is no news."""

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return "local"


def _takes_gzip(accepted: str) -> bool:
    """Read Accept-Encoding (RFC 9110 §12.5.3): named, or meant by `*`, and not with a weight of 0."""
    weights = {}
    for part in accepted.lower().split(","):
        name, _, parameters = part.strip().partition(";")
        weights[name.strip()] = not parameters.replace(" ", "").startswith("q=0") or any(
            digit in parameters.partition("=")[2] for digit in "123456789"
        )
    return weights.get("gzip", weights.get("*", False))
