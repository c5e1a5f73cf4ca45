"""Run by itself in a network of its own: a package index, a hub of models, and what echoes, on ports 80 and 443.

The hub answers as Hugging Face's own does to its client: a model's description, its tree, small files at once, large
ones by a redirect to another name. Its files lie in `www/hub`.
"""

import hashlib
import http.server
import json
import ssl
import sys
import threading
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

HUB, STORE = "huggingface.co", "cdn-lfs-us-1.hf.co"
MODEL = "lab/tiny"
_COMMIT = hashlib.sha1(MODEL.encode(), usedforsecurity=False).hexdigest()
_LARGE_BYTES = 1 << 20


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers for every name; the hub's are told by the Host header."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        host = self.headers["Host"]
        if path == "/host":
            self.answer(host.encode())
        elif path == "/moved":
            self.answer(b"", 302, Location="https://elsewhere.example.net/")
        elif host == HUB:
            self.answer_as_hub(path)
        elif host == STORE:
            self.answer((Path(self.directory) / "hub" / path.removeprefix("/")).read_bytes())
        elif self.command == "HEAD":
            super().do_HEAD()
        else:
            super().do_GET()

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer_as_hub(self, path: str) -> None:
        """Describe the one model, list it, or give one of its files."""
        files = {place.name: place.read_bytes() for place in (Path(self.directory) / "hub").iterdir()}
        name = path.rpartition("/")[2]
        if path.startswith(f"/api/models/{MODEL}/tree/"):
            listed = [
                {"type": "file", "oid": _etag(data), "size": len(data), "path": name} for name, data in files.items()
            ]
            self.answer(json.dumps(listed).encode(), **{"Content-Type": "application/json"})
        elif path.startswith(f"/api/models/{MODEL}"):
            siblings = [{"rfilename": name} for name in files]
            told = {"id": MODEL, "modelId": MODEL, "sha": _COMMIT, "private": False, "siblings": siblings, "tags": []}
            self.answer(json.dumps(told).encode(), **{"Content-Type": "application/json"})
        elif path.startswith(f"/{MODEL}/resolve/") and name in files:
            data = files[name]
            marks = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": _COMMIT}
            if len(data) < _LARGE_BYTES:
                self.answer(data, **marks)
                return
            linked = {"X-Linked-ETag": f'"{_etag(data)}"', "X-Linked-Size": str(len(data))}
            self.answer(b"", 302, Location=f"https://{STORE}/{name}", **marks, **linked)
        else:
            self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(folder: str, address: str) -> None:
    """Serve a folder's `www` until the process is ended."""
    handler = partial(Handler, directory=f"{folder}/www")
    plain = http.server.ThreadingHTTPServer((address, 80), handler)
    secure = http.server.ThreadingHTTPServer((address, 443), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem")
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    print("listening", flush=True)
    secure.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
