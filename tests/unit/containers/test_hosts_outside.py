"""Inside an environment: the port that leads tools to the gateway's proxy, their variables, and `connect` for ssh."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from devgw_environment.contract import Environment
from devgw_environment.open_hosts import proxy_variables
from devgw_environment.sockets import open_listener

from tests.support.host_resources import free_port
from tests.support.ssh_clients import poll
from tests.unit.containers.conftest import ENVIRONMENT_SOURCES


class Inside:
    """An environment's folders, its ports listener, and a stand-in for the gateway's proxy that says what it got."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.variables = os.environ | {
            "PYTHONPATH": str(ENVIRONMENT_SOURCES),
            "DEVGW_RUN_FOLDER": str(folder),
            "DEVGW_CONFIG_FOLDER": str(folder),
            "HOME": str(folder),
        }
        self.environment = Environment("alice", folder, "/bin/sh", folder, folder, 1)

    def tell(self, *hosts: str, lead_tools: bool = True) -> None:
        """Put the gateway's word there, as it does: by a rename."""
        about = {"version": 1, "hosts": hosts, "port": self.port, "lead_tools": lead_tools}
        (self.folder / "egress.new").write_text(json.dumps(about))
        (self.folder / "egress.new").rename(self.folder / "egress.json")

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "devgw_environment", *words]

    def accepts(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


@pytest.fixture
def inside() -> Iterator[Inside]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Inside(Path(folder))


@pytest.fixture
def listening(inside: Inside) -> Iterator[Inside]:
    with (inside.folder / "log").open("wb") as log:
        process = subprocess.Popen(inside.command("ports"), env=inside.variables, stdout=log, stderr=log)
    poll((inside.folder / "ports.sock").exists, "ports.sock")
    yield inside
    process.kill()
    process.wait(10)


@pytest.fixture
def proxy(inside: Inside) -> Iterator[list[bytes]]:
    """Answer each connection to the gateway's socket: yes to `open.example.net`, no to others; then echo."""
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = connection.recv(4096)
            got.append(request)
            if b"open.example.net" not in request:
                connection.sendall(b"HTTP/1.1 403 devgw: closed; ask Ada\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\nearly ")
            while data := connection.recv(65_536):
                connection.sendall(data)

    with open_listener(inside.environment.egress_socket) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield got
        listener.shutdown(socket.SHUT_RDWR)


def test_the_port_is_held_as_long_as_a_host_is_open(listening: Inside) -> None:
    assert not listening.accepts()
    listening.tell("open.example.net")
    poll(listening.accepts, "the port")
    listening.tell()
    poll(lambda: not listening.accepts(), "its end")


def test_a_connection_to_the_port_arrives_at_the_gateways_socket(listening: Inside, proxy: list[bytes]) -> None:
    listening.tell("open.example.net")
    poll(listening.accepts, "the port")
    with socket.create_connection(("127.0.0.1", listening.port), 10) as tool:
        tool.sendall(b"CONNECT open.example.net:443 HTTP/1.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"early "):
            answer += tool.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"CONNECT open.example.net:443 HTTP/1.1\r\n\r\n" in proxy


def test_without_the_gateways_socket_a_tool_is_not_left_waiting(listening: Inside) -> None:
    listening.tell("open.example.net")
    poll(listening.accepts, "the port")
    with socket.create_connection(("127.0.0.1", listening.port), 10) as tool:
        tool.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert tool.recv(1) == b""


@pytest.mark.parametrize(("hosts", "leads"), [(("a.example.net",), True), (("a.example.net",), False), ((), True)])
def test_tools_are_led_only_where_a_host_is_open_and_no_network_is(
    inside: Inside, hosts: tuple[str, ...], leads: bool
) -> None:
    inside.tell(*hosts, lead_tools=leads)
    variables = proxy_variables(inside.environment)
    if hosts and leads:
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        assert {variables[name] for name in names} == {f"http://127.0.0.1:{inside.port}"}
        assert variables["no_proxy"] == variables["NO_PROXY"] == "localhost,127.0.0.1,::1"
    else:
        assert variables == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"port": "x", "hosts": ["a"]}', '{"port": 22, "hosts": ["a"]}'])
def test_a_word_that_cannot_be_read_leads_nobody(inside: Inside, text: str) -> None:
    (inside.folder / "egress.json").write_text(text)
    assert proxy_variables(inside.environment) == {}


def connect(inside: Inside, host: str, words: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = inside.command("connect", host, "22")
    return subprocess.run(command, env=inside.variables, input=words, capture_output=True, timeout=30, check=False)


def test_connect_carries_every_byte_both_ways(inside: Inside, proxy: list[bytes]) -> None:
    words = os.urandom(1 << 20)
    done = connect(inside, "open.example.net", words)
    assert (done.returncode, done.stdout == b"early " + words, done.stderr) == (0, True, b"")
    assert proxy == [b"CONNECT open.example.net:22 HTTP/1.1\r\nHost: open.example.net:22\r\n\r\n"]


def test_connect_says_what_the_gateway_says(inside: Inside, proxy: list[bytes]) -> None:
    done = connect(inside, "closed.example.net")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"devgw: closed; ask Ada\n")
    assert len(proxy) == 1


def test_connect_without_a_gateway_says_so(inside: Inside) -> None:
    done = connect(inside, "open.example.net")
    assert done.returncode == 1
    assert done.stderr.startswith(b"devgw: no way to hosts outside: ")
