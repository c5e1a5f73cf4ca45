"""Forwards through the gateway: into the environment and nowhere else."""

import hashlib
import socket
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Laboratory
from tests.support.environment_inside import LOOPBACK_PORT, blob
from tests.support.host_resources import free_port
from tests.support.ssh_clients import poll, tunnel
from tests.support.ssh_gateway import allow_all, lab_policy

SIZE = 3 << 20


def fetch(port: int, path: str = "/", data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=20) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("remote", ["localhost:8888", "127.0.0.1:8888", "[::1]:8888", f"localhost:{LOOPBACK_PORT}"])
def test_a_forward_reaches_the_users_own_environment(laboratory: Laboratory, remote: str) -> None:
    """Every spelling of the loopback is the environment's: notebook port and any other."""
    port = free_port()
    with tunnel(laboratory.gateway, "alice", laboratory.alice, "-L", f"{port}:{remote}", wait_for=port):
        assert fetch(port) == b"notebook of alice\n"
        assert fetch(port, f"/blob?size={SIZE}") == blob(SIZE)
        assert fetch(port, "/", blob(SIZE)) == hashlib.sha256(blob(SIZE)).hexdigest().encode()


@pytest.mark.attack("C1", "another user's notebook under the same `localhost:8888`")
def test_two_users_reach_two_notebooks(laboratory: Laboratory) -> None:
    """The same localhost:8888 is another place for each."""
    ports = free_port(), free_port()
    gateway = laboratory.gateway
    with (
        tunnel(gateway, "alice", laboratory.alice, "-L", f"{ports[0]}:localhost:8888", wait_for=ports[0]),
        tunnel(gateway, "bob", laboratory.bob, "-L", f"{ports[1]}:localhost:8888", wait_for=ports[1]),
    ):
        assert [fetch(port) for port in ports] == [b"notebook of alice\n", b"notebook of bob\n"]


def test_twenty_downloads_at_once_compare_equal(laboratory: Laboratory) -> None:
    """Many channels of one connection do not mix and all end."""
    port = free_port()
    with (
        tunnel(laboratory.gateway, "alice", laboratory.alice, "-L", f"{port}:localhost:8888", wait_for=port),
        ThreadPoolExecutor(20) as pool,
    ):
        bodies = list(pool.map(lambda n: fetch(port, f"/blob?size={200_000 + n}"), range(20)))
    assert bodies == [blob(200_000 + n) for n in range(20)]


def test_dynamic_forwarding_reaches_the_environment(laboratory: Laboratory) -> None:
    """`-D` is direct-tcpip as well."""
    port = free_port()
    with (
        tunnel(laboratory.gateway, "alice", laboratory.alice, "-D", str(port), wait_for=port),
        socket.create_connection(("127.0.0.1", port), 10) as sock,
    ):
        sock.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09localhost" + (8888).to_bytes(2, "big"))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while b"notebook of alice" not in answer:
            data = sock.recv(4096)
            assert data, answer
            answer += data


@pytest.mark.attack("C2", "metadata service, another host, another spelling of the loopback through `-W`")
@pytest.mark.parametrize(
    "destination",
    [
        "169.254.169.254:80",  # the metadata service of a cloud
        "127.0.0.2:22",  # loopback, but not one of its three names
        "0.0.0.0:8888",
        "[::ffff:127.0.0.1]:22",
        "gateway.example:22",
        "localhost:22",  # this gateway needs no jump
    ],
)
def test_other_destinations_are_refused_with_the_reason(laboratory: Laboratory, destination: str) -> None:
    """The client shows rule or reason and reference, and the journal has it."""
    mark = laboratory.gateway.recorder.mark()
    done = laboratory.gateway.run("alice", laboratory.alice, before=["-W", destination])
    assert done.returncode == 255
    assert b"administratively prohibited" in done.stderr
    denied = laboratory.gateway.recorder.find("forward.denied", mark)
    assert denied.reference.encode() in done.stderr


def test_a_closed_port_of_the_environment_is_refused(laboratory: Laboratory) -> None:
    """Nobody listens: the channel fails to open and the connection stays."""
    done = laboratory.gateway.run("alice", laboratory.alice, before=["-W", "localhost:4999"])
    assert b"connect failed" in done.stderr.lower()
    assert laboratory.gateway.run("alice", laboratory.alice, "true").returncode == 0


@pytest.mark.attack("C3", "the engine's socket by direct-streamlocal")
def test_a_unix_socket_of_the_environment_is_reached(laboratory: Laboratory, tmp_path: Path) -> None:
    """direct-streamlocal connects inside; paths that the policy does not name are refused."""
    inside = next(iter(laboratory.gateway.environments.by_ref.values())).root / "notebook.sock"
    port = free_port()
    with tunnel(laboratory.gateway, "alice", laboratory.alice, "-L", f"{port}:{inside}", wait_for=port):
        assert fetch(port) == b"notebook of alice\n"
    done = laboratory.gateway.run("alice", laboratory.alice, before=["-W", "/var/run/docker.sock:0"])
    assert done.returncode == 255


@pytest.mark.attack("C4", "`-R` where no policy permits it")
def test_a_reverse_forward_is_refused_by_default(laboratory: Laboratory) -> None:
    """`-R` fails, and with ExitOnForwardFailure the client ends."""
    mark = laboratory.gateway.recorder.mark()
    before = ["-o", "ExitOnForwardFailure=yes", "-R", "9000:localhost:9000"]
    done = laboratory.gateway.run("alice", laboratory.alice, "true", before=before)
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr
    assert laboratory.gateway.recorder.find("reverse-forward.denied", mark).rule == "lab.default"


@pytest.mark.attack("C4", "`-R`, also with port 0, where it is permitted: never a port of the gateway")
@pytest.mark.parametrize("port", [9001, 0])
def test_a_reverse_forward_listens_in_the_environment_where_allowed(laboratory: Laboratory, port: int) -> None:
    """What connects there arrives at the user's own machine, not at the gateway's port."""
    laboratory.gateway.policy = allow_all
    with socket.create_server(("127.0.0.1", 0)) as here:
        target = f"localhost:{here.getsockname()[1]}"
        try:
            command = "exec 3<>/dev/tcp/127.0.0.1/%s; echo hello >&3; read -r line <&3; echo got $line"
            with_port = "9001" if port else "$(ss -Hltn | sed -n 's/.*127.0.0.1:\\([0-9]*\\) .*/\\1/p' | grep -v 6006)"
            process = subprocess.Popen(
                laboratory.gateway.ssh(
                    "alice", laboratory.alice, command % with_port, before=["-R", f"{port}:{target}"]
                ),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
            here.settimeout(10)
            connection, _ = here.accept()
            with connection:
                assert connection.recv(100) == b"hello\n"
                connection.sendall(b"back\n")
            out, err = process.communicate(timeout=10)
            assert out == b"got back\n", err
        finally:
            laboratory.gateway.policy = lab_policy


def test_an_agent_is_forwarded_where_allowed(laboratory: Laboratory, tmp_path: Path) -> None:
    """The environment sees the user's agent through a connection of its own."""
    laboratory.gateway.policy = allow_all
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "a")], stdout=subprocess.DEVNULL)
    try:
        poll((tmp_path / "a").exists, "the agent")
        subprocess.run(
            ["ssh-add", "-q", str(laboratory.alice)], env={"SSH_AUTH_SOCK": str(tmp_path / "a")}, check=True, timeout=60
        )
        before = ["-A", "-o", f"IdentityAgent={tmp_path}/a"]
        done = laboratory.gateway.run("alice", laboratory.alice, "ssh-add -l; ssh-add -l", before=before)
    finally:
        laboratory.gateway.policy = lab_policy
        agent.terminate()
        agent.wait(10)
    assert done.stdout.count(b"ED25519") == 2, done.stderr


@pytest.mark.attack("C13", "`-X`: no display reaches the environment")
def test_x11_and_tun_are_refused(laboratory: Laboratory) -> None:
    """No display reaches the environment, and a tunnel device is not opened."""
    done = laboratory.gateway.run(
        "alice", laboratory.alice, "echo [$DISPLAY]", before=["-X"], env={"DISPLAY": ":7", "PATH": "/usr/bin:/bin"}
    )
    assert done.stdout == b"[]\n"


def test_a_forward_is_journaled_with_its_bytes(laboratory: Laboratory) -> None:
    """Opened and closed, with what went each way."""
    port, mark = free_port(), laboratory.gateway.recorder.mark()
    with tunnel(laboratory.gateway, "bob", laboratory.bob, "-L", f"{port}:localhost:8888", wait_for=port):
        fetch(port, "/blob?size=100000")
        poll(
            lambda: [
                event
                for event in laboratory.gateway.recorder.events[mark:]
                if event.code == "forward.closed" and int(event.detail["sent_bytes"] or 0) > 100_000
            ],
            "the record of the download",
        )


@pytest.mark.attack("C15", "half-close: nothing is left open")
def test_a_server_that_closes_first_ends_the_channel(laboratory: Laboratory) -> None:
    """Half-close passes through in both directions and leaves nothing open."""
    port = free_port()
    with tunnel(laboratory.gateway, "alice", laboratory.alice, "-L", f"{port}:localhost:8888", wait_for=port):
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(4096):
                answer += data
        assert answer.endswith(b"notebook of alice\n")
        poll(lambda: open_forwards(laboratory) == 0, "the end of all channels")


def open_forwards(laboratory: Laboratory) -> int:
    server = laboratory.gateway.server
    assert server is not None
    return sum(len(report.channels) for report in server.registry.report())


@pytest.mark.attack("E30", "forwards until the gateway's descriptors run out")
def test_a_forward_beyond_the_descriptors_is_refused_and_its_socket_closed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked with the descriptor and with what the user holds; the next one is answered as before."""
    port, asked = free_port(), list[tuple[int, int]]()

    def has_no_room(descriptor: int, held: int) -> bool:
        asked.append((descriptor, held))
        return False

    with tunnel(laboratory.gateway, "alice", laboratory.alice, "-L", f"{port}:localhost:8888", wait_for=port):
        with monkeypatch.context() as patched:
            patched.setattr("gateway.ssh.upstream.dialer.may_keep", has_no_room)
            with pytest.raises((urllib.error.URLError, OSError)):
                fetch(port)
        assert asked
        assert all(held >= 2 for _, held in asked)  # the connection, and the forward itself
        assert fetch(port) == b"notebook of alice\n"
