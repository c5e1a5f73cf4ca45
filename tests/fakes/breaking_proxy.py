"""A proxy before a real Docker daemon.

It loses one request, or its answer, as when the daemon dies there; or it has the daemon say something else of itself.
"""

import http.client
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Literal

When = Literal["before", "after"]
_DAEMON_TIMEOUT_SECONDS = 60


@dataclass
class Break:
    """Where the line breaks: at the first request that matches, before it arrives or after it was done.

    With `stays_down` nothing gets through afterwards.
    """

    request: str
    when: When
    stays_down: bool
    happened: threading.Event = field(default_factory=threading.Event)

    def loses(self, request: str, when: When) -> bool:
        """Say whether this request is lost at this moment."""
        if self.happened.is_set():
            return self.stays_down
        if when == self.when and re.fullmatch(self.request, request):
            self.happened.set()
            return True
        return False


def as_it_is(_request: str, content: bytes) -> bytes:
    """Leave an answer alone."""
    return content


@contextmanager
def breaking_proxy(
    directory: Path, daemon_url: str, break_: Break | None = None, answer_of: Callable[[str, bytes], bytes] = as_it_is
) -> Iterator[str]:
    """Yield the URL of a proxy to a daemon's Unix socket."""
    path = directory / "proxy.sock"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            request = f"{self.command} {re.sub(r'^/v[0-9.]+', '', self.path.partition('?')[0])}"
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if break_ is not None and break_.loses(request, "before"):
                self.close_connection = True
                return
            daemon = _DaemonConnection(daemon_url.removeprefix("unix://"))
            daemon.request(self.command, self.path, body, {"Content-Type": "application/json"})
            answer = daemon.getresponse()
            content = answer_of(request, answer.read())
            daemon.close()
            if break_ is not None and break_.loses(request, "after"):
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            if answer.status not in {204, 304}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = relay  # noqa: N815 names that http.server looks for

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_args: object) -> None:
            """Write nothing between the tests' dots."""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


class _DaemonConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_DAEMON_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)
