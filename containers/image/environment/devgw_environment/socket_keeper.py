"""A Jupyter server extension that opens the notebook's socket again when its file was removed or replaced.

Kernels and open pages are kept; restarting the server for this would lose them.
"""

from pathlib import Path
from typing import Any

from tornado.ioloop import PeriodicCallback

from devgw_environment.sockets import identify_file, open_listener

CHECK_MILLISECONDS = 1000


class SocketKeeper:
    """Watches one socket file and keeps the server reachable through it."""

    def __init__(self, server: Any, path: Path) -> None:
        self.server = server
        self.path = path
        self.identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Remember the socket's identity at first; later, replace a socket that is no longer ours."""
        found = identify_file(self.path)
        if self.identity is None:
            self.identity = found
        if found != self.identity or found is None:
            listener = open_listener(self.path)
            listener.setblocking(False)
            self.server.http_server.add_socket(listener)
            self.identity = identify_file(self.path)
            self.server.log.warning("The notebook's socket had gone and was opened again")


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "devgw_environment.socket_keeper"}]


def _load_jupyter_server_extension(server: Any) -> None:
    keeper = SocketKeeper(server, Path(server.sock))
    server.devgw_socket_check = PeriodicCallback(keeper.check, CHECK_MILLISECONDS)
    server.devgw_socket_check.start()
