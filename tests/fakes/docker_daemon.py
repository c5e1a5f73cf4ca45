"""A Docker Engine API on a Unix socket that answers from a script: for refusals a healthy daemon never gives.

It is not an engine. What a real one does is in tests/contract.
"""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

HEALTHY_INFO = {
    "ServerVersion": "26.1.5",
    "CDISpecDirs": ["/etc/cdi"],
    "Runtimes": {"runc": {}},
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "DefaultRuntime": "runc",
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
}
DROP = (0, None)  # the connection ends without an answer, as when a daemon is killed
CUT = (0, "cut")  # it ends after the first piece of an answer that comes in pieces


@dataclass
class ScriptedDaemon:
    """`answers` maps `METHOD /path` (without version and query) to a status and a JSON body."""

    url: str
    api_version: str = "1.45"
    info: dict[str, Any] = field(default_factory=lambda: dict(HEALTHY_INFO))
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bodies: dict[str, Any] = field(default_factory=dict)

    def answer(self, request: str, body: bytes) -> tuple[int, Any]:
        """Return status and body, from the script or as an empty daemon would."""
        self.asked.append(request)
        if body and request != "POST /build":  # its body is a tar ball
            self.bodies[request] = json.loads(body)
        if request.startswith("GET /images/"):
            request = "GET /images"
        return {**self._as_an_empty_daemon(), **self.answers}.get(request, (404, {"message": "No such container: x"}))

    def _as_an_empty_daemon(self) -> dict[str, tuple[int, Any]]:
        return {
            "GET /version": (200, {"ApiVersion": self.api_version, "Version": "26.1.5"}),
            "GET /info": (200, self.info),
            "GET /images": (200, {"Id": "sha256:1", "Config": {"Labels": None}}),
            "GET /networks": (200, []),
            "GET /containers/json": (200, []),
            "POST /networks/create": (201, {"Id": "n1"}),
            "POST /containers/create": (201, {"Id": "c1"}),
        }


@contextmanager
def scripted_daemon(directory: Path) -> Iterator[ScriptedDaemon]:
    """Serve on a socket in a directory until the block ends."""
    socket_path = directory / "d.sock"
    daemon = ScriptedDaemon(f"unix://{socket_path}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/v1."):
                path = path[path.index("/", 1) :]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.pieces()
            status, answer = daemon.answer(f"{self.command} {path}", body)
            if (status, answer) == DROP:
                self.close_connection = True
                return
            if (status, answer) == CUT:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b'16\r\n{"stream": "Step 1/2"}\r\n')
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def pieces(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_DELETE = respond  # noqa: N815 names that http.server looks for

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_args: object) -> None:
            """Write nothing between the tests' dots."""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(socket_path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()
