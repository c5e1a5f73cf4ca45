"""`connect HOST PORT`: standard input and output joined with a host outside, by name, for ssh's ProxyCommand."""

import os
import select
import socket
import sys

from devgw_environment.contract import Environment

ANSWER_MAX = 16 << 10
ANSWER_SECONDS = 40.0
CHUNK_BYTES = 64 << 10


def run_connect(environment: Environment, host: str, port: str) -> int:
    """Ask the gateway's proxy for the host and carry bytes until both sides have ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
        far.settimeout(ANSWER_SECONDS)
        try:
            far.connect(str(environment.egress_socket))
            far.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode("ascii"))
            status, early = read_answer(far)
        except (OSError, UnicodeError) as problem:
            print(f"devgw: no way to hosts outside: {problem}", file=sys.stderr)
            return 1
        if not status.startswith("200 "):
            print(status.partition(" ")[2], file=sys.stderr)
            return 1
        far.settimeout(None)
        write_all(1, early)
        carry(far)
    return 0


def read_answer(far: socket.socket) -> tuple[str, bytes]:
    """Status and reason of the proxy's answer, and what came behind its head. Raises: OSError."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = far.recv(CHUNK_BYTES)
        if not more or len(answer) > ANSWER_MAX:
            raise ConnectionError("the gateway hung up")
        answer += more
    head, _, early = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n", 1)[0].decode("ascii", "replace").partition(" ")[2], early


def carry(far: socket.socket) -> None:
    """Carry bytes both ways; the end of one is passed on, the end of the host's ends all."""
    sources = [0, far.fileno()]
    while far.fileno() in sources:
        for source in select.select(sources, [], [])[0]:
            try:
                data = os.read(source, CHUNK_BYTES)
            except ConnectionError:
                return
            if source == 0 and data:
                far.sendall(data)
            elif source == 0:
                sources.remove(0)
                far.shutdown(socket.SHUT_WR)
            elif data:
                write_all(1, data)
            else:
                return


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte."""
    while data:
        data = data[os.write(descriptor, data) :]
