"""Streams into a pod: plain sockets whose directions end apart, and an early end that is never taken for success."""

import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.engines.kubernetes import examine
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.streams.by_exec import capture
from gateway.engines.kubernetes.streams.dialing import Streams
from gateway.errors import EngineError
from gateway.model import Egress
from tests.unit.engines.kubernetes.exec_server import ExecServer
from tests.unit.engines.kubernetes.pod_dial import Dial, listen_in


@pytest.fixture(params=["exec", "network"])
def dial(request: pytest.FixtureRequest, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dial:
    """Both ways into a pod."""
    listen_in(tmp_path, monkeypatch)
    return Dial(cluster, Streams(cluster, by_network=request.param == "network"))


def read_all(stream: socket.socket) -> bytes:
    received = bytearray()
    while piece := stream.recv(65536):
        received += piece
    return bytes(received)


def wait_until(is_reached: Callable[[], bool], state: str) -> None:
    deadline = time.monotonic() + 20
    while not is_reached():
        assert time.monotonic() < deadline, f"not reached: {state}"
        time.sleep(0.02)


def test_each_direction_ends_by_itself(dial: Dial, service: socket.socket) -> None:
    """What is sent after the other side has ended still arrives, whole."""
    with dial() as stream, service.accept()[0] as inside:
        stream.sendall(b"x" * 700_000)
        stream.shutdown(socket.SHUT_WR)
        assert read_all(inside) == b"x" * 700_000
        inside.sendall(b"y" * 700_000)
        inside.shutdown(socket.SHUT_WR)
        assert read_all(stream) == b"y" * 700_000


def test_the_service_may_end_first(dial: Dial, service: socket.socket) -> None:
    with dial() as stream, service.accept()[0] as inside:
        inside.sendall(b"bye")
        inside.shutdown(socket.SHUT_WR)
        assert read_all(stream) == b"bye"
        stream.sendall(b"still heard")
        stream.shutdown(socket.SHUT_WR)
        assert read_all(inside) == b"still heard"


def test_both_directions_move_at_once(dial: Dial, service: socket.socket) -> None:
    """Neither waits for the other, however full the buffers are."""
    size = 4 * 2**20
    with dial() as stream, service.accept()[0] as inside:
        inside.settimeout(30)
        sender = threading.Thread(target=lambda: (inside.sendall(b"o" * size), inside.shutdown(socket.SHUT_WR)))
        pusher = threading.Thread(target=lambda: (stream.sendall(b"i" * size), stream.shutdown(socket.SHUT_WR)))
        sender.start()
        pusher.start()
        wait_until(lambda: not sender.is_alive() or pusher.is_alive(), "both have begun")
        taken: list[int] = []
        taker = threading.Thread(target=lambda: taken.append(len(read_all(inside))))
        taker.start()
        assert len(read_all(stream)) == size
        for thread in (sender, pusher, taker):
            thread.join(30)
        assert taken == [size]


@pytest.mark.parametrize("reader", ["user", "service"])
def test_who_reads_late_gets_everything(
    dial: Dial, service: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """Both directions have ended long before: what is on its way is as much as all buffers hold, or more."""
    listen_in(tmp_path, monkeypatch, **{"ANSWER_SECONDS = 5": b"ANSWER_SECONDS = 1"})
    size = 24 * 2**20
    with dial() as stream, service.accept()[0] as inside:
        inside.settimeout(60)
        late, early = (stream, inside) if reader == "user" else (inside, stream)
        late.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=lambda: (early.sendall(b"x" * size), early.shutdown(socket.SHUT_WR)))
        sender.start()
        assert early.recv(1) == b""
        time.sleep(4)
        received = len(read_all(late))
        sender.join(30)
    assert received == size


def test_a_stream_that_is_cut_ends_both_ways(dial: Dial, server: ExecServer, service: socket.socket) -> None:
    """Whoever waits for an exit status hears the end and has no status; the service hears of it too."""
    with dial() as stream, service.accept()[0] as inside:
        stream.sendall(b"begun")
        assert inside.recv(5) == b"begun"
        server.cut()
        server.end_processes()
        assert read_all(stream) == b""
        with pytest.raises(OSError):  # noqa: PT011 - a broken pipe or a reset
            stream.sendall(b"x" * 2**24)
        assert inside.recv(1) == b""


@pytest.mark.parametrize("ended", ["neither", "ours", "theirs"])
def test_a_stream_that_leads_nowhere_is_cut(dial: Dial, service: socket.socket, ended: str) -> None:
    """A node without a cable ends nothing by itself; whatever direction was over before, both are then."""
    lost = threading.Event()
    with dial(is_gone=lost.is_set) as stream, service.accept()[0] as inside:
        if ended == "ours":
            stream.shutdown(socket.SHUT_WR)
            assert inside.recv(1) == b""
        if ended == "theirs":
            inside.shutdown(socket.SHUT_WR)
            assert stream.recv(1) == b""
        assert not lost.wait(1.5)
        assert not _is_broken(stream)  # it stands while nobody says that it is lost
        lost.set()
        assert stream.recv(1) == b""
        wait_until(lambda: _is_broken(stream), "nothing can be sent")


@pytest.mark.parametrize(("way", "is_cut"), [("exec", True), ("network", False)])
def test_a_node_that_does_not_answer_the_api_cuts_what_goes_through_the_api(
    cluster: Cluster, service: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str, *, is_cut: bool
) -> None:
    """A kubelet that is away for a minute ends nobody's session that it does not carry."""
    listen_in(tmp_path, monkeypatch)
    dial = Dial(cluster, Streams(cluster, by_network=way == "network"))
    with dial(is_away=lambda: True) as stream, service.accept()[0] as inside:
        time.sleep(2.5)
        assert _is_broken(stream) is is_cut
        if not is_cut:
            stream.sendall(b"still")
            assert inside.recv(5) == b"still"


def _is_broken(stream: socket.socket) -> bool:
    """Say whether the other end is gone for both directions."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def test_a_reader_that_goes_takes_the_stream_along(dial: Dial, server: ExecServer, service: socket.socket) -> None:
    """Not only half of it: the service writes nothing and never ends by itself."""
    stream = dial()
    with service.accept()[0] as inside:
        stream.close()
        assert inside.recv(1) == b""
        wait_until(lambda: server.open_streams == 0, "the exec stream is closed")


def test_a_service_that_is_not_there_is_absent(dial: Dial) -> None:
    with pytest.raises(EngineError) as refusal:
        dial()
    assert refusal.value.code == "socket.absent"


@pytest.mark.parametrize("kind", ["link", "file", "directory"])
def test_what_is_no_socket_is_forged(dial: Dial, tmp_path: Path, service: socket.socket, kind: str) -> None:
    place = tmp_path / "notebook.sock"
    if kind == "link":
        place.symlink_to(tmp_path / "ssh.sock")
    elif kind == "file":
        place.write_text("")
    else:
        place.mkdir()
    with pytest.raises(EngineError) as refusal:
        dial("notebook")
    assert refusal.value.code == "socket.forged"


def test_a_service_that_does_not_answer_is_refused(dial: Dial, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ports.sock"))
    with pytest.raises(EngineError) as refusal:
        dial("ports")
    assert refusal.value.code == "socket.refused"


def test_a_command_tells_its_exit_code(cluster: Cluster) -> None:
    output = cluster.run(capture(cluster, "/pod", ["sh", "-c", "echo out; echo err >&2; exit 7"]))
    assert (output.code, output.out, output.error) == (7, b"out\n", b"err\n")
    assert cluster.run(capture(cluster, "/pod", ["true"])).code == 0


def test_a_command_whose_stream_ends_early_has_no_exit_code(
    cluster: Cluster, server: ExecServer, tmp_path: Path
) -> None:
    """Never 0: `kubectl exec` ends with 0 there."""
    mark = tmp_path / "begun"
    work = cluster.submit(capture(cluster, "/pod", ["sh", "-c", f"touch {mark}; sleep 30"]))
    wait_until(mark.exists, "the command runs")
    server.cut()
    assert work.result(20).code is None


def test_gpus_are_read_inside(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the device plugin told the container."""
    monkeypatch.setenv(
        "NVIDIA_VISIBLE_DEVICES", "GPU-0a1b2c3d-0000-4000-8000-000000000001,GPU-0a1b2c3d-0000-4000-8000-000000000002"
    )
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    found = examine.read(cluster.run(capture(cluster, "/pod", examine.command_for("https://api.example"))))
    assert [uuid[-1] for uuid in examine.require_gpus(found, 2)] == ["1", "2"]
    with pytest.raises(EngineError) as refusal:
        examine.require_gpus(found, 1)
    assert refusal.value.code == "gpu.injection"


def test_a_network_that_is_open_is_found_out(cluster: Cluster, server: ExecServer) -> None:
    """A pod that reaches the API server lives in a cluster that enforces nothing."""
    found = examine.read(cluster.run(capture(cluster, "/pod", examine.command_for(server.url))))
    with pytest.raises(EngineError) as refusal:
        examine.require_closed_network(found, Egress.NONE, is_accepted=False)
    assert (refusal.value.code, "accept_unenforced_network" in refusal.value.hint) == ("egress.unenforceable", True)
    examine.require_closed_network(found, Egress.NONE, is_accepted=True)
