"""Forwards to the gateway itself, by its own name: a Unix socket behind it, for whom the policy lets."""

import gzip
import http.client
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway.metrics.exposition import MetricsServer
from gateway.metrics.socket import connect
from policies.requests import Decision, ForwardRequest, Request
from tests.e2e.conftest import Laboratory
from tests.support.host_resources import free_port
from tests.support.ssh_clients import poll, tunnel
from tests.support.ssh_gateway import TestGateway, lab_policy


def monitor_policy(request: Request) -> Decision:
    """What lab_policy allows, and the metrics for alice."""
    if isinstance(request, ForwardRequest) and request.host.lower() == "devgw":
        allowed = request.subject.user == "alice" and request.port in {9464, 9465}
        return Decision(allowed, "lab.monitor", "monitors" if allowed else "no role names devgw")
    return lab_policy(request)


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laboratory, MetricsServer, Path]]:
    root = tmp_path_factory.mktemp("gw")
    registry = CollectorRegistry()
    Gauge("devgw_test", "a number", registry=registry).set(7)
    place = root / "metrics.sock"
    metrics = MetricsServer(place, registry)
    metrics.start()
    gateway = TestGateway(
        root, monitor_policy, own_ports={9464: lambda _caller: connect(place)}, touch_interval_seconds=0.1
    )
    gateway.start()
    try:
        yield Laboratory(gateway, gateway.add_user("alice", running=False), gateway.add_user("bob")), metrics, place
    finally:
        gateway.stop()
        metrics.stop()


def scrape(port: int, **headers: str) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        client.request("GET", "/metrics", headers=headers)
        answer = client.getresponse()
        body = answer.read()
        return gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body


@pytest.mark.parametrize("name", ["devgw", "DevGW"])
def test_the_metrics_come_through_a_forward(monitored: tuple[Laboratory, MetricsServer, Path], name: str) -> None:
    """As Prometheus asks; nobody's environment is started for it; the journal says who read, and how much."""
    laboratory, _metrics, _place = monitored
    gateway, port = laboratory.gateway, free_port()
    mark = gateway.recorder.mark()
    with tunnel(gateway, "alice", laboratory.alice, "-L", f"{port}:{name}:9464", wait_for=port):
        assert b"devgw_test 7.0" in scrape(port)
        accept = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
        assert scrape(port, **accept).endswith(b"# EOF\n")
    opened = gateway.recorder.find("forward.opened", mark)
    assert (opened.actor.name, opened.detail["destination"]) == ("alice", f"{name}:9464")
    poll(lambda: any(event.detail.get("sent_bytes") for event in gateway.recorder.events[mark:]), "its byte counts")
    assert gateway.environments.starts == 0


def test_what_the_gateway_answers_itself_is_no_use_of_an_environment(
    monitored: tuple[Laboratory, MetricsServer, Path],
) -> None:
    """Nobody's environment stays up because its user looks at a page; a command inside is a use."""
    laboratory, _metrics, _place = monitored
    gateway, port = laboratory.gateway, free_port()
    touched = gateway.environments.touched

    def moved(user: str) -> int:
        return sum(size for ref, size in touched if ref.user == user)

    with tunnel(gateway, "alice", laboratory.alice, "-L", f"{port}:devgw:9464", wait_for=port):
        before = moved("alice")
        looks = len(touched)
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:  # a channel that stays open
            for _ in range(20):
                client.request("GET", "/metrics")
                client.getresponse().read()
            poll(lambda: len(touched) >= looks + 3, "three looks at what moved")
        assert moved("alice") == before
    bobs = moved("bob")
    typing = subprocess.Popen(gateway.ssh("bob", laboratory.bob, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        typing.stdin.write(b"used\n")
        typing.stdin.flush()
        poll(lambda: moved("bob") > bobs, "bob's use")
    finally:
        typing.communicate(timeout=60)


@pytest.mark.attack("C17", "the gateway's own metrics without the right")
@pytest.mark.parametrize("destination", ["devgw:9464", "DEVGW:9464", "devgw:80", "devgw:22", "devgw.:9464"])
def test_without_the_right_the_name_leads_nowhere(
    monitored: tuple[Laboratory, MetricsServer, Path], destination: str
) -> None:
    laboratory, _metrics, _place = monitored
    mark = laboratory.gateway.recorder.mark()
    done = laboratory.gateway.run("bob", laboratory.bob, before=["-W", destination])
    assert done.returncode == 255
    assert b"administratively prohibited" in done.stderr
    assert b"devgw_test" not in done.stdout
    denied = laboratory.gateway.recorder.find("forward.denied", mark)
    assert denied.reference.encode() in done.stderr


def test_a_port_at_which_the_gateway_has_nothing_is_refused(monitored: tuple[Laboratory, MetricsServer, Path]) -> None:
    """Whatever the policy says, the name never leads into a network."""
    laboratory, _metrics, _place = monitored
    done = laboratory.gateway.run("alice", laboratory.alice, before=["-W", "devgw:9465"])
    assert b"the gateway has nothing at this port" in done.stderr


def test_a_right_taken_away_ends_the_forward(monitored: tuple[Laboratory, MetricsServer, Path]) -> None:
    """The next look at everybody's rights, which comes twice a second, ends the channel and leaves the connection."""
    laboratory, _metrics, _place = monitored
    gateway, port = laboratory.gateway, free_port()
    mark = gateway.recorder.mark()
    with (
        tunnel(gateway, "alice", laboratory.alice, "-L", f"{port}:devgw:9464", wait_for=port),
        socket.create_connection(("127.0.0.1", port)),  # it asks nothing, so its channel stays open
    ):
        gateway.recorder.find("forward.opened", mark)
        assert scrape(port)
        gateway.policy = lab_policy
        try:
            assert gateway.server is not None
            gateway.call(gateway.server.recheck(gateway.decide))
            with pytest.raises((OSError, http.client.HTTPException)):
                scrape(port)
            gateway.recorder.find("session.revoked", mark)
        finally:
            gateway.policy = monitor_policy


def test_metrics_that_are_away_are_said_and_come_back(monitored: tuple[Laboratory, MetricsServer, Path]) -> None:
    """The first worker is being replaced: the user reads why, and the next try goes through."""
    laboratory, metrics, _place = monitored
    gateway = laboratory.gateway
    metrics.stop()
    try:
        done = gateway.run("alice", laboratory.alice, before=["-W", "devgw:9464"])
        assert b"the gateway's metrics do not answer just now" in done.stderr
    finally:
        metrics.start()
    port = free_port()
    with tunnel(gateway, "alice", laboratory.alice, "-L", f"{port}:devgw:9464", wait_for=port):
        poll(lambda: b"devgw_test" in scrape(port), "the metrics")
