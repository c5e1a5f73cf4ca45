"""Answers of an API server written down: a path gives an object, or the Status of a refusal. What is made is kept."""

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
    """`objects` by path; `denied` are rights such as `create pods`. `asked` keeps method and path of each question.

    A refusal is of a path, or with a method before it of that question alone.
    """

    def __init__(self, **objects: Any) -> None:
        self.objects: dict[str, Any] = dict(objects)
        self.refusals: dict[str, tuple[int, str, str]] = {}
        self.denied: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    def answer(self, method: str, path: str, body: bytes, *, is_trial: bool) -> tuple[int, Any]:
        self.asked.append((method, path))
        if path == REVIEWS:
            wanted = json.loads(body)["spec"]["resourceAttributes"]
            kind = wanted["resource"] + (f"/{wanted['subresource']}" if wanted["subresource"] else "")
            return 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": f"{wanted['verb']} {kind}" not in
                                                                        self.denied}}  # fmt: skip
        refusal = self.refusals.get(path) or self.refusals.get(f"{method} {path}")
        if refusal is not None:
            status, reason, message = refusal
            return status, {"kind": "Status", "code": status, "reason": reason, "message": message}
        return self._act(method, path, json.loads(body) if body else {}, is_trial=is_trial)

    def _act(self, method: str, path: str, body: dict[str, Any], *, is_trial: bool) -> tuple[int, Any]:
        if method == "POST":
            name = f"{path}/{body['metadata']['name']}"
            if name in self.objects:
                return 409, {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "it exists"}
            if not is_trial:
                self.objects[name] = body
            return 201, body
        if method == "DELETE" and path in self.objects:
            return 200, self.objects.pop(path)
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
            path, _, query = self.path.partition("?")
            status, found = answers.answer(self.command, path, body, is_trial="dryRun" in query)
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
