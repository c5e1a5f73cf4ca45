"""What runs inside the test environment, as `python environment_inside.py ROOT USER UID` in fresh namespaces.

Standard library only, imported at the top: it becomes the user before it listens, and may then read no more modules.
As the first process of its pid namespace it takes all others along when it ends, which it does at the end of its
standard input: when the test closes it, or is killed.
"""

import contextlib
import encodings.idna
import encodings.latin_1
import encodings.unicode_escape  # noqa: F401
import fcntl
import hashlib
import http.server
import os
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlparse

IMAGE = (
    Path(sys.argv[1]) / "image" if __name__ == "__main__" else Path(__file__).resolve().parents[2] / "containers/image"
)
"""Inside it is a copy: the checkout may lie where its user may not look, such as root's home."""
sys.path.insert(0, str(IMAGE / "environment"))

from devgw_environment.contract import Environment  # noqa: E402 - the image's package lies where no gateway looks
from devgw_environment.ports import run_ports_listener  # noqa: E402
from devgw_environment.sshd import sshd_command, sshd_variables  # noqa: E402

VARIABLES = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": "Etc/UTC"}
"""Those of the container, as the image and its engine set them."""
LOOPBACK_PORT = 6006
"""A second HTTP server of the environment, on its loopback."""


def blob(size: int, seed: str = "notebook") -> bytes:
    """Return reproducible bytes that compress badly."""
    block = b"".join(hashlib.sha256(f"{seed}{index}".encode()).digest() for index in range(2048))
    return (block * (size // len(block) + 1))[:size]


def _enter(root: Path, uid: int) -> None:
    for name in ("passwd", "group", "shadow"):
        subprocess.run(["mount", "--bind", str(root / name), f"/etc/{name}"], check=True, timeout=60)
    for name in ("profile.d", "bash.bashrc"):
        source = str(IMAGE / "rootfs" / "etc" / name)
        subprocess.run(["mount", "--bind", source, f"/etc/{name}"], check=True, timeout=60)
    terminals = "newinstance,gid=5,mode=620,ptmxmode=666"  # sshd wants terminals of the group tty
    subprocess.run(["mount", "-t", "devpts", "-o", terminals, "devpts", "/dev/pts"], check=True, timeout=60)
    subprocess.run(["mount", "--bind", "/dev/pts/ptmx", "/dev/ptmx"], check=True, timeout=60)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up and running
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    return listener


def _reap(*_signal: object) -> None:
    """Wait for what has ended, orphans of sshd included: that is the first process's duty."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_with_standard_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _environment(root: Path, user: str) -> Environment:
    return Environment(user, root / "home", "/bin/bash", root, root, 1)


def _serve_ssh(root: Path, user: str) -> None:
    listener = _listen(root / "ssh.sock")
    log = (root / "sshd.log").open("ab")
    signal.signal(signal.SIGCHLD, _reap)
    children: list[subprocess.Popen[bytes]] = []
    command, variables = sshd_command(_environment(root, user)), sshd_variables()
    while True:
        connection, _ = listener.accept()
        with connection:
            children = [child for child in children if child.poll() is None]
            children.append(
                subprocess.Popen(command, env=variables, stdin=connection, stdout=connection, stderr=log, cwd="/")
            )


class Notebook(http.server.BaseHTTPRequestHandler):
    """Answers GET with reproducible bytes and POST with the digest of what it got."""

    user = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = parse_qs(urlparse(self.path).query)
        size = int(query.get("size", ["0"])[0])
        self._answer(blob(size) if size else f"notebook of {self.user}\n".encode())

    def do_POST(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, 1 << 20))
            digest.update(data)
            left -= len(data)
        self._answer(digest.hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "gateway"

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def _serve_http(user: str, server_socket: socket.socket) -> None:
    Notebook.user = user

    class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
        daemon_threads = True

        def fileno(self) -> int:
            return server_socket.fileno()

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that leaves in the middle is no error here."""

        def get_request(self) -> tuple[socket.socket, str]:
            return server_socket.accept()[0], "gateway"

        def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]  # stream sockets only
            request.close()

    Server("unused", Notebook).serve_forever()


def _serve_ports(root: Path, user: str) -> None:
    """Serve `ports.sock` in a process of its own, as the image does."""
    if (root / "no-ports").exists() or os.fork():
        return
    try:
        run_ports_listener(_environment(root, user))
    finally:
        os._exit(1)


def _main(root: Path, user: str, uid: int) -> None:
    _enter(root, uid)
    os.environ.clear()
    os.environ.update(VARIABLES, HOME=str(root / "home"), DEVGW_USER=user)
    os.umask(0o022)
    tcp = socket.create_server(("127.0.0.1", LOOPBACK_PORT))
    _serve_ports(root, user)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    for server_socket in (_listen(root / "notebook.sock"), tcp):
        threading.Thread(target=_serve_http, args=(user, server_socket), daemon=True).start()
    _serve_ssh(root, user)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
