"""Answers of an API server written down: a path gives an object, or the Status of a refusal. It keeps nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{token: abc}}}}]
"""
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class WrittenAnswers:
    """`objects` by path; `denied` are rights such as `create pods`. `asked` keeps method and path of each question."""

    def __init__(self, **objects: Any) -> None:
        self.objects: dict[str, Any] = dict(objects)
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.denied: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        self.asked.append((method, path))
        if path == REVIEWS:
            wanted = json.loads(body)["spec"]["resourceAttributes"]
            kind = wanted["resource"] + (f"/{wanted['subresource']}" if wanted["subresource"] else "")
            return 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": f"{wanted['verb']} {kind}" not in
                                                                        self.denied}}  # fmt: skip
        if path in self.refusals:
            status, reason, message = self.refusals[path]
            return status, {"kind": "Status", "code": status, "reason": reason, "message": message}
        if method == "GET" and path in self.objects:
            return 200, self.objects[path]
        return 404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": f"nothing at {path}"}


@contextmanager
def api_server(answers: WrittenAnswers, directory: Path) -> Iterator[Path]:
    """Yield a kubeconfig that leads to the answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found = answers.answer(self.command, self.path.partition("?")[0], body)
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(_KUBECONFIG.format(url=f"http://127.0.0.1:{server.server_port}"))
    try:
        yield kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)
