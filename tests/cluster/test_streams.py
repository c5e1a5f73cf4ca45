"""Which way streams into a pod take: its own network, past API server and kubelet; exec where that leads nowhere.

What the cluster itself tells is asked: how many exec streams its API server carries, and which connections there are to
the pod's address.
"""

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.environments import NAMESPACE, NODES, cluster, cluster_variables, kubectl, objects
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
_MEGABYTES = 8
_NOTICED_SECONDS = 60
"""A path that is dead is noticed within half a minute."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("streams"), cluster_variables())
    try:
        gateway.devgw("init")
        gateway.create("alice")
        gateway.serve()
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def gateway(made: GatewayProcess) -> GatewayProcess:
    """Alice's environment is a new pod, of which the gateway has found out nothing yet."""
    made.devgw("stop", "alice")
    assert made.ssh("alice", "true").returncode == 0
    return made


def exec_streams() -> int:
    """Return how many exec streams the API server carries just now, whoever opened them."""
    metrics = kubectl("get", "--raw", "/metrics")
    lines = re.findall(r'^apiserver_longrunning_gauge\{.*subresource="exec".*\} ([0-9]+)$', metrics, re.MULTILINE)
    return sum(map(int, lines))


def address() -> str:
    """Return the address of the one pod."""
    (pod,) = objects("pods")
    return kubectl("-n", NAMESPACE, "get", pod, "-o", "jsonpath={.status.podIP}")


def received_over_the_network(pod: str) -> list[int]:
    """Return what came over each open connection to a pod's address, in bytes. The gateway stands where tests do."""
    command = ["ss", "-Htin", "state", "established", "dst", pod]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    connections = [line for line in said.splitlines() if line.strip() and "wscale" in line]
    return [int(found[1]) if (found := re.search(r"bytes_received:([0-9]+)", one)) else 0 for one in connections]


@contextmanager
def closed() -> Iterator[None]:
    """Drop on each node what goes into its pods and comes out of them, as a plugin does whose policy names nobody."""
    rule = ("FORWARD", "-j", "DROP")
    for node in NODES:
        cluster("on", node, "iptables", "-w", "-I", *rule)
    try:
        yield
    finally:
        for node in NODES:
            cluster("on", node, "iptables", "-w", "-D", *rule)


@contextmanager
def session(gateway: GatewayProcess, command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Have a session of alice's open, whose command has begun."""
    words = gateway.ssh_command("alice", f"echo begun; {command}")
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
        yield client
    finally:
        client.kill()
        client.communicate(timeout=60)


def test_streams_go_over_the_pods_network_and_by_no_exec(gateway: GatewayProcess) -> None:
    """While a session is open the API server carries nothing; what it sent came from the pod's own address."""
    pod = address()
    with session(gateway, f"head -c {_MEGABYTES * 2**20} /dev/zero; sleep 600") as client:
        assert client.stdout is not None
        assert len(client.stdout.read(_MEGABYTES * 2**20)) == _MEGABYTES * 2**20
        assert sum(received_over_the_network(pod)) >= _MEGABYTES * 2**20
        connections = len(received_over_the_network(pod))
        with gateway.tunnel("alice") as port, socket.create_connection(("127.0.0.1", port), timeout=60) as browser:
            browser.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert browser.recv(9) == b"HTTP/1.1 "
            assert len(received_over_the_network(pod)) > connections
            poll(lambda: exec_streams() == 0, "no exec stream is open", 20)  # the gateway asks by exec how a pod is


@pytest.mark.parametrize("does", ["nothing", "sends"])
def test_a_network_that_breaks_ends_the_session_and_exec_takes_the_next(gateway: GatewayProcess, does: str) -> None:
    """Its end is no success, and is noticed soon, whether something is on its way or not; who comes then gets in."""
    pod = address()
    with session(gateway, "cat >/dev/null; sleep 600") as client, closed():
        began = time.monotonic()
        if does == "sends":
            assert client.stdin is not None
            client.stdin.write(b"x" * 1000)
            client.stdin.flush()
        poll(lambda: client.poll() is not None, "the session ends", _NOTICED_SECONDS)
        assert client.returncode not in {0, None}
        assert time.monotonic() - began > 5, "something else has cut it"
        with session(gateway, "sleep 600"):
            assert exec_streams() >= 1
            assert received_over_the_network(pod) == []
            assert gateway.ssh("alice", "exit 7").returncode == 7


def test_a_pod_that_cannot_be_reached_from_its_beginning_is_served_by_exec(made: GatewayProcess) -> None:
    """As by a gateway outside the cluster, or behind a policy that does not name it; its next pod is tried anew."""
    made.devgw("stop", "alice")
    with closed():
        with session(made, "sleep 600"):
            assert exec_streams() >= 1
            assert received_over_the_network(address()) == []
        assert made.ssh("alice", "cat", stdin=b"x" * 2**20).stdout == b"x" * 2**20
    made.devgw("stop", "alice")
    with session(made, "sleep 600"):
        assert len(received_over_the_network(address())) == 1
        poll(lambda: exec_streams() == 0, "no exec stream is open", 20)
