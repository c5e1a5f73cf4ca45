"""Whether the environment is ready: both sockets answer as the contract says."""

import socket
import sys
from pathlib import Path

from devgw_environment.contract import Environment

TIMEOUT_SECONDS = 5.0


def ask(path: Path, request: bytes) -> bytes:
    """Connect to a Unix socket, send the request (possibly nothing), and return the beginning of the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(path))
        if request:
            connection.sendall(request)
        return connection.recv(64)


def check_sockets(environment: Environment) -> int:
    """Exit status 0 when SSH and notebook both answer, else 1 with the reason on standard error."""
    http = b"GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    wanted = [
        (environment.ssh_socket, b"", b"SSH-2.0-"),
        (environment.notebook_socket, http, b"HTTP/1.1 200"),
    ]
    for path, request, beginning in wanted:
        try:
            answer = ask(path, request)
        except OSError as problem:
            print(f"devgw-init: {path}: {problem}", file=sys.stderr)
            return 1
        if not answer.startswith(beginning):
            print(f"devgw-init: {path}: unexpected answer {answer!r}", file=sys.stderr)
            return 1
    return 0
