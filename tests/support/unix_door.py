"""A loopback TCP port that leads to a Unix socket, for clients that speak TCP only."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes one way until the source ends, then tell the target."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def relay(client: socket.socket, path: Path) -> None:
    """Carry one connection to the Unix socket and back."""
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(str(path))
        except OSError:
            return
        backward = threading.Thread(target=pump, args=(server, client), daemon=True)
        backward.start()
        pump(client, server)
        backward.join()


def accept_all(listener: socket.socket, path: Path) -> None:
    """Give each connection a thread, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=relay, args=(client, path), daemon=True).start()


@contextlib.contextmanager
def open_door(path: Path) -> Iterator[str]:
    """Yield `http://localhost:port` whose connections reach the Unix socket at `path`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_all, args=(listener, path), daemon=True).start()
        yield f"http://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
