"""A program behind the notebook port that sends or takes bytes as fast as it can, and the client that asks it.

A request is 16 bytes: `D` or `U` and a decimal number of bytes, or `E` and how many messages are sent back.
`python -m tests.benchmarks.stream SOCKET` prints the TCP port on which it serves the same.
"""

import os
import socket
import sys
import threading
import time
from pathlib import Path

BLOCK_BYTES = 1 << 20
ECHO_BYTES = 64


def main(path: Path) -> None:
    """Serve on a Unix socket and on a loopback port until killed."""
    block = memoryview(os.urandom(BLOCK_BYTES))
    path.unlink(missing_ok=True)
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(path))
    path.chmod(0o666)
    tcp = socket.create_server(("127.0.0.1", 0), backlog=1024)
    local.listen(1024)
    print(tcp.getsockname()[1], flush=True)
    threading.stack_size(128 << 10)
    threading.Thread(target=_accept, args=(tcp, block), daemon=True).start()
    _accept(local, block)


def _accept(listener: socket.socket, block: memoryview) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, block), daemon=True).start()


def _serve(connection: socket.socket, block: memoryview) -> None:
    buffer = bytearray(BLOCK_BYTES)
    try:
        while request := _read(connection, 16):
            left = int(request[1:])
            if request[:1] == b"D":
                while left:
                    connection.sendall(block[: min(left, BLOCK_BYTES)])
                    left -= min(left, BLOCK_BYTES)
            elif request[:1] == b"E":
                if connection.family != socket.AF_UNIX:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(left):
                    connection.sendall(_read(connection, ECHO_BYTES))
            else:
                while left:
                    got = connection.recv_into(buffer, min(left, BLOCK_BYTES))
                    if not got:
                        return
                    left -= got
                connection.sendall(b".")
    except OSError:
        pass
    finally:
        connection.close()


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def download(port: int, size: int) -> float:
    """Return the seconds it takes to get so many bytes through a local port."""
    buffer = bytearray(BLOCK_BYTES)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        began, left = time.perf_counter(), size
        sock.sendall(b"D%015d" % size)
        while left:
            got = sock.recv_into(buffer)
            assert got, "the stream ended early"
            left -= got
        return time.perf_counter() - began


def upload(port: int, size: int) -> float:
    """Return the seconds until so many bytes have arrived at the far end."""
    block = memoryview(bytearray(BLOCK_BYTES))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        began, left = time.perf_counter(), size
        sock.sendall(b"U%015d" % size)
        while left:
            sock.sendall(block[: min(left, BLOCK_BYTES)])
            left -= min(left, BLOCK_BYTES)
        assert sock.recv(1) == b"."
        return time.perf_counter() - began


def echo(sock: socket.socket, message: bytes) -> float:
    """Return the seconds until a message has come back."""
    began = time.perf_counter()
    sock.sendall(message)
    assert _read(sock, len(message)) == message
    return time.perf_counter() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
