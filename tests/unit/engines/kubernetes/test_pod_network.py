"""The listener inside a pod: whom it lets in, when it is begun, and what happens where it is not reached."""

import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.streams import by_network
from gateway.engines.kubernetes.streams.dialing import Streams
from gateway.engines.kubernetes.streams.identity import make_identity
from tests.unit.engines.kubernetes.exec_server import ExecServer
from tests.unit.engines.kubernetes.pod_dial import LED, Dial, listen_in


@pytest.fixture
def dial(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dial:
    listen_in(tmp_path, monkeypatch)
    return Dial(cluster, Streams(cluster, by_network=True))


def greeting(dial: Dial, service: socket.socket) -> bytes:
    """Dial, let the service speak, and return what arrives."""
    with dial() as stream, service.accept()[0] as inside:
        inside.sendall(b"hello")
        return stream.recv(5)


def port_of(server: ExecServer) -> int:
    """Return the port at which the pod's one listener listens."""
    [number] = server.background()
    links: list[str] = []
    for link in Path(f"/proc/{number}/fd").iterdir():
        with suppress(FileNotFoundError):  # a stream of before that just closes
            links.append(str(link.readlink()))
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    for line in Path(f"/proc/{number}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            return int(words[1].rpartition(":")[2], 16)
    raise AssertionError("it does not listen")


def _answer_to(context: ssl.SSLContext, port: int) -> bytes:
    """Ask for ssh; a refusal shows at the handshake or, with TLS 1.3, at the first read."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain) as stranger:
                stranger.sendall(b"ssh\n")
                return stranger.recv(1)
        except OSError:
            return b""


def test_one_listener_serves_every_stream(dial: Dial, server: ExecServer, service: socket.socket) -> None:
    """The API is asked once; no exec stream stays open."""
    assert [greeting(dial, service) for _ in range(3)] == [b"hello"] * 3
    assert server.commands == 1
    assert len(server.background()) == 1
    assert server.open_streams == 0


def test_each_pod_has_a_listener_of_its_own(
    dial: Dial, cluster: Cluster, server: ExecServer, service: socket.socket
) -> None:
    assert greeting(dial, service) == b"hello"
    dial.pod = {"metadata": {"uid": "2"}, "status": {"podIP": "127.0.0.1"}}
    assert greeting(dial, service) == b"hello"
    assert (server.commands, len(server.background())) == (2, 2)


@pytest.mark.parametrize("shown", ["nothing", "another"])
def test_a_neighbour_does_not_get_in(dial: Dial, server: ExecServer, service: socket.socket, shown: str) -> None:
    """Nobody without the key that the gateway made for this pod; the service hears nothing of it."""
    assert greeting(dial, service) == b"hello"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown == "another":
        identity = make_identity()
        context = by_network._context(identity, identity)
        context.verify_mode = ssl.CERT_NONE
    assert _answer_to(context, port_of(server)) == b""
    service.settimeout(0.3)
    with pytest.raises(TimeoutError):
        service.accept()


def test_plain_bytes_reach_nothing(dial: Dial, server: ExecServer, service: socket.socket) -> None:
    assert greeting(dial, service) == b"hello"
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=10) as plain:
        plain.sendall(b"ssh\n" * 100)
        with suppress(ConnectionResetError):
            plain.settimeout(20)
            while plain.recv(4096):
                pass
    service.settimeout(0.3)
    with pytest.raises(TimeoutError):
        service.accept()


def test_another_pod_at_the_same_address_is_not_taken_for_it(
    dial: Dial, server: ExecServer, service: socket.socket
) -> None:
    """Addresses are given to new pods: a listener with another certificate hears nothing, and exec is the way."""
    assert greeting(dial, service) == b"hello"
    impostor = make_identity()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = os.memfd_create("identity")
    os.write(place, impostor.private.encode())
    context.load_cert_chain(f"/proc/self/fd/{place}")
    os.close(place)
    port = port_of(server)
    server.end_processes()
    with socket.create_server(("127.0.0.1", port)) as taken:
        taken.settimeout(20)
        heard: list[bytes] = []

        def impersonate() -> None:
            plain, _ = taken.accept()
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as stream:
                heard.append(stream.recv(100))

        thread = threading.Thread(target=impersonate, daemon=True)
        thread.start()
        assert greeting(dial, service) == b"hello"
        thread.join(20)
        assert not b"".join(heard)


def test_a_listener_that_was_ended_is_begun_again(dial: Dial, server: ExecServer, service: socket.socket) -> None:
    assert greeting(dial, service) == b"hello"
    server.end_processes()
    assert greeting(dial, service) == b"hello"
    assert (server.commands, len(server.background())) == (2, 1)


def test_an_idle_listener_leaves(
    dial: Dial, server: ExecServer, service: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a process of the user's; an open stream keeps it."""
    monkeypatch.setattr(by_network, "_IDLE_SECONDS", 0.2)
    with dial() as stream, service.accept()[0] as inside:
        time.sleep(1)
        inside.sendall(b"hello")
        assert stream.recv(5) == b"hello"
    _wait_for_none(server)
    assert greeting(dial, service) == b"hello"


@pytest.mark.parametrize("address", ["", "127.0.0.2"])
def test_where_the_pods_network_does_not_lead_exec_does(
    dial: Dial, server: ExecServer, service: socket.socket, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """And the network is not tried again for a while. 127.0.0.2 is where a listener at 127.0.0.1 is not reached."""
    listen_in(server.directory, monkeypatch, **{'settings["address"]': b'"127.0.0.1"'})
    dial.pod = {"metadata": {"uid": "1"}, "status": {"podIP": address}}
    assert [greeting(dial, service) for _ in range(3)] == [b"hello"] * 3
    assert server.commands == (3 if not address else 4)


def test_a_pod_that_cannot_listen_is_reached_by_exec(
    dial: Dial, server: ExecServer, service: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its Python has no ssl."""
    listen_in(server.directory, monkeypatch, **{"import ssl\n": b"import no_such_module\n"})
    assert [greeting(dial, service) for _ in range(2)] == [b"hello"] * 2
    assert server.commands == 3


def test_many_dials_at_once_begin_one_listener(dial: Dial, cluster: Cluster, server: ExecServer) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server.directory / "notebook.sock"))
        listener.listen(64)
        work = [cluster.submit(dial.streams.dial(dial.pod, "/pod", "notebook", LED)) for _ in range(20)]
        streams = [one.result(30) for one in work]
    assert server.commands == 1
    for stream in streams:
        stream.close()


def test_a_frame_that_is_too_long_ends_the_stream(
    dial: Dial, server: ExecServer, service: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is inside may be in the listener's place; what it sends is bounded all the same."""
    listen_in(server.directory, monkeypatch, **{"LENGTH.pack(len(data)) + data": b"b'\\x7f' * 64"})
    with dial() as stream, service.accept()[0] as inside:
        inside.sendall(b"hello")
        assert stream.recv(5) == b""


def _wait_for_none(server: ExecServer) -> None:
    deadline = time.monotonic() + 20
    while server.background():
        assert time.monotonic() < deadline, "the listener is still there"
        time.sleep(0.05)
