"""The environment's ports listener as its own process, met by clients that keep to the contract and by others."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.host_resources import free_port
from tests.support.ssh_clients import poll
from tests.unit.containers.conftest import ENVIRONMENT_SOURCES

DESCRIPTORS = 256
BUSY_AFTER = (DESCRIPTORS - 64) // 6


class Listener:
    """A running listener and its folder."""

    def __init__(self, folder: Path, notebook_port: int, launcher: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.notebook_port = notebook_port
        (folder / "environment.json").write_text(json.dumps({"version": 1, "notebook_port": notebook_port}))
        variables = {
            "PYTHONPATH": str(ENVIRONMENT_SOURCES),
            "DEVGW_RUN_FOLDER": str(folder),
            "DEVGW_CONFIG_FOLDER": str(folder),
            "HOME": str(folder),
        }
        command = [sys.executable, "-m", "devgw_environment", "ports"]
        limited = [*launcher, "sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh", *command]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(limited, env=os.environ | variables, stdout=log, stderr=log)
        poll((folder / "ports.sock").exists, "ports.sock")

    def ask(self, words: bytes) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        sock.connect(str(self.folder / "ports.sock"))
        with contextlib.suppress(BrokenPipeError):  # one too many is told so before it has asked; the answer is there
            sock.sendall(words)
        return sock

    def open(self, port: int) -> socket.socket:
        sock = self.ask(f"localhost {port}\n".encode())
        assert sock.recv(1) == b"+"
        return sock

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_ticks(self) -> int:
        return sum(map(int, Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


@pytest.fixture
def listener() -> Iterator[Listener]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = Listener(Path(folder), free_port())
        yield made
        made.process.kill()
        made.process.wait(10)


@contextmanager
def service(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection to a loopback port in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(1 << 16):
        data += more
    return data


@pytest.mark.attack("C15", "requests to `ports.sock` that are none: other hosts, impossible ports, binary, too long")
@pytest.mark.parametrize(
    "words",
    [
        b"\n",
        b"localhost\n",
        b"localhost 0\n",
        b"localhost 65536\n",
        b"localhost 080808\n",
        b"localhost +80\n",
        b"localhost \xb2\n",
        b"localhost 80",
        b"localhost 80\nGET",
        b"127.0.0.2 80\n",
        b"0.0.0.0 80\n",
        b"169.254.169.254 80\n",
        b"::1%lo 80\n",
        b"::ffff:127.0.0.1 80\n",
        b" localhost 80\n",
        b"/run/x 80\n",
        b"\0" * 32,
        b"a" * 5000,
    ],
)
def test_anything_but_a_loopback_port_is_malformed(listener: Listener, words: bytes) -> None:
    """No address other than the two loopbacks is ever connected to, whoever asks."""
    with listener.ask(words) as sock, contextlib.suppress(ConnectionResetError):  # with words of ours unread
        assert read_all(sock) in {b"-malformed\n", b""}
    with service(echo) as port:
        listener.open(port).close()


def test_a_connection_without_a_request_is_closed(listener: Listener) -> None:
    """Within seconds: nobody keeps a place by silence."""
    with listener.ask(b"") as sock:
        assert read_all(sock) == b"-malformed\n"


def test_what_is_large_arrives_whole_both_ways_at_once(listener: Listener) -> None:
    """Each direction waits for its reader and neither for the other."""
    sent = os.urandom(1 << 20) * 24
    with service(echo) as port, listener.open(port) as sock:
        writer = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(socket.SHUT_WR)), daemon=True)
        writer.start()
        assert read_all(sock) == sent
        writer.join(10)


def test_messages_of_every_size_around_the_change_from_copy_to_pipe_arrive(listener: Listener) -> None:
    """Each is answered before the next is sent, so that a byte left behind would be missed."""
    with service(echo) as port, listener.open(port) as sock:
        for size in (1, 2, 4095, 16383, 16384, 16385, 32768, 65536, 262143, 262144, 262145, 1 << 20):
            message = os.urandom(size)
            threading.Thread(target=sock.sendall, args=(message,), daemon=True).start()
            got = b""
            while len(got) < size:
                got += sock.recv(1 << 20)
            assert got == message


def test_an_end_that_comes_with_the_last_bytes_is_passed_on(listener: Listener) -> None:
    """Epoll tells of both in one event; many times, since it is a matter of timing."""

    def say(connection: socket.socket) -> None:
        with connection:
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    with service(say) as port:
        for _ in range(200):
            with listener.open(port) as sock:
                assert read_all(sock) == b"bye"


@pytest.mark.attack("C15", "more connections to `ports.sock` than there are descriptors, half of them silent")
def test_the_one_too_many_is_told_and_the_others_work_on(listener: Listener) -> None:
    """The listener neither ends nor spins, and has room again when they are gone."""
    with service(echo) as port:
        held = [listener.open(port) if number % 2 else listener.ask(b"") for number in range(BUSY_AFTER)]
        with listener.ask(f"localhost {port}\n".encode()) as refused:
            assert refused.recv(10) == b"-busy\n"
        held[1].sendall(b"on")
        assert held[1].recv(2) == b"on"
        for sock in held:
            sock.close()
        poll(lambda: can_open(listener, port), "room for another")


def can_open(listener: Listener, port: int) -> bool:
    with listener.ask(f"localhost {port}\n".encode()) as sock:
        return sock.recv(1) == b"+"


@pytest.mark.attack("C15", "forwards cut off in every state: nothing leaks inside, and nothing spins")
def test_no_descriptor_and_no_processor_time_is_left_behind(listener: Listener) -> None:
    """Ends by either side, with bytes on the way and without, by end of file and by reset."""

    def flood(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(bytes(8 << 20))

    def vanish(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    before = listener.descriptors()
    with service(flood) as flooding, service(vanish) as vanishing, service(echo) as echoing:
        for _ in range(40):
            for port in (flooding, vanishing, echoing):
                with listener.ask(f"localhost {port}\n".encode()) as sock:
                    sock.recv(1)
                    with contextlib.suppress(OSError):
                        sock.sendall(b"x" * 1000)
                        sock.recv(500)
        stuck = [listener.open(flooding) for _ in range(4)]  # full, and never read
        poll(lambda: is_idle(listener), "the listener at rest while four are stuck")
        for sock in stuck:
            sock.close()
        poll(lambda: listener.descriptors() <= before + 2 * 8, "all descriptors but spare pipes", 15)
        poll(lambda: is_idle(listener), "the listener at rest")


def is_idle(listener: Listener) -> bool:
    """Say whether it used less than a twentieth of a processor for a second."""
    begun, used = time.monotonic(), listener.cpu_ticks()
    poll(lambda: time.monotonic() - begun > 1, "a second")
    return listener.cpu_ticks() - used < 5


def test_a_removed_or_replaced_socket_is_made_anew(listener: Listener) -> None:
    """Within two seconds, and open forwards stay."""
    path = listener.folder / "ports.sock"
    with service(echo) as port, listener.open(port) as old:
        path.unlink()
        poll(path.exists, "a new socket")
        path.unlink()
        path.write_text("not a socket")
        poll(path.is_socket, "a new socket")
        assert path.stat().st_mode & 0o777 == 0o600
        listener.open(port).close()
        old.sendall(b"still")
        assert old.recv(5) == b"still"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize(("family", "loopback"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_every_spelling_reaches_a_server_on_either_loopback(
    listener: Listener, host: str, family: socket.AddressFamily, loopback: str
) -> None:
    """A development server listens on one of them, and nobody knows on which."""
    with (
        socket.create_server((loopback, 0), family=family) as server,
        listener.ask(f"{host} {server.getsockname()[1]}\n".encode()) as sock,
    ):
        assert sock.recv(1) == b"+"
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"here")
            assert sock.recv(4) == b"here"


def test_a_free_port_that_tcp_would_join_with_itself_is_refused() -> None:
    """With one port to connect from, a connection to it is one of the socket with itself (RFC 793 §3.4)."""
    narrow = 'ip link set lo up; echo 40000 40000 >/proc/sys/net/ipv4/ip_local_port_range; exec "$@"'
    alone = ("unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", narrow, "sh")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        made = Listener(Path(folder), 8888, alone)
        try:
            with made.ask(b"127.0.0.1 40000\n") as sock:
                assert read_all(sock) == b"-refused\n"
        finally:
            made.process.kill()
            made.process.wait(10)


def test_the_notebooks_port_inside_is_the_notebooks(listener: Listener) -> None:
    """A user's own server meets `address in use`, and who connects there meets the notebook, on either loopback."""
    with socket.socket(socket.AF_UNIX) as notebook:
        notebook.bind(str(listener.folder / "notebook.sock"))
        notebook.listen()
        poll(lambda: b"notebook-port.held" in (listener.folder / "log").read_bytes(), "the notebook's port held")
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", listener.notebook_port))
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, listener.notebook_port), 5) as browser:
                server, _ = notebook.accept()
                with server:
                    server.sendall(b"notebook")
                    assert browser.recv(8) == b"notebook"
    with listener.ask(b"notebook-port\n") as sock:
        assert read_all(sock) == b"-held\n"


def test_a_server_that_was_quicker_on_the_notebooks_port_is_told_of(listener: Listener) -> None:
    """The gateway can ask, and the port is taken once it is free."""
    listener.process.kill()
    listener.process.wait(10)
    with socket.create_server(("127.0.0.1", listener.notebook_port)):
        (listener.folder / "ports.sock").unlink()
        again = Listener(listener.folder, listener.notebook_port)
        listener.process = again.process
        with again.ask(b"notebook-port\n") as sock:
            assert read_all(sock) == b"-taken\n"
    with again.ask(b"notebook-port\n") as sock:
        assert read_all(sock) == b"-held\n"
