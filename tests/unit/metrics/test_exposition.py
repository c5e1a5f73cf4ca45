"""HTTP at a Unix socket: what Prometheus of any age asks, and what nobody should."""

import gzip
import http.client
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import EngineError
from gateway.metrics.exposition import CLIENTS_MAX, MetricsServer
from gateway.metrics.socket import connect, fetch
from gateway.metrics.textfile import write_textfile
from tests.support.ssh_clients import poll

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Gauge("devgw_test", "a number", registry=made).set(7)
    return made


@pytest.fixture
def place(tmp_path: Path, registry: CollectorRegistry) -> Iterator[Path]:
    server = MetricsServer(tmp_path / "run" / "metrics.sock", registry)
    server.start()
    yield tmp_path / "run" / "metrics.sock"
    server.stop()


def ask(
    place: Path, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    client = http.client.HTTPConnection("devgw", timeout=10)
    with closing(client):
        client.sock = connect(place)
        client.sock.settimeout(10)
        client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        return answer, answer.read()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4;q=0.3", "text/plain; version=0.0.4"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", "text/plain; version=0.0.4"),
    ],
)
def test_the_format_is_what_was_asked_for(place: Path, accept: str, kind: str) -> None:
    answer, body = ask(place, Accept=accept)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith(kind)
    assert b"devgw_test 7.0" in body
    assert body.endswith(b"# EOF\n") == ("openmetrics" in kind)


@pytest.mark.parametrize(
    ("encoding", "packs"),
    [("", False), ("identity", False), ("gzip", True), ("deflate, gzip;q=1.0", True), ("*", True), ("gzip;q=0", False),
     ("gzip;q=0.0, *", False), ("gzip; q=0.5", True), ("br", False)],
)  # fmt: skip
def test_gzip_is_given_to_whom_takes_it(place: Path, encoding: str, packs: bool) -> None:
    answer, body = ask(place, Accept_Encoding=encoding)
    assert (answer.headers["Content-Encoding"] == "gzip") == packs
    text = (gzip.decompress(body) if packs else body).decode()
    assert [family.name for family in text_string_to_metric_families(text)] == ["devgw_test"]


def test_one_connection_serves_many_scrapes(place: Path) -> None:
    client = http.client.HTTPConnection("devgw", timeout=10)
    with closing(client):
        client.sock = connect(place)
        client.sock.settimeout(10)
        for _ in range(3):
            client.request("GET", "/metrics")
            assert client.getresponse().read()


def test_other_paths_and_methods_are_refused(place: Path) -> None:
    assert ask(place, path="/etc/passwd")[0].status == 404
    assert ask(place, method="POST")[0].status == 501
    answer, body = ask(place, method="HEAD")
    assert (answer.status, body) == (200, b"")


def test_the_socket_is_its_owners_alone(place: Path) -> None:
    found = place.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_garbage_and_silence_cost_nobody_else_their_answer(place: Path) -> None:
    """More clients than are served at once, silent: turned away; when they leave, others are served."""
    silent = [connect(place) for _ in range(CLIENTS_MAX)]
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(place)
    silent[0].send(b"\x00\xff\r\n\r\n")
    for one in silent:
        one.close()
    poll(lambda: _answers(place), "an answer")


def _answers(place: Path) -> bool:
    try:
        return ask(place)[0].status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_successor_takes_the_place_and_keeps_it(place: Path, registry: CollectorRegistry) -> None:
    """A killed worker's socket lies about; one that ends late does not take its successor's away."""
    server = MetricsServer(place, registry)
    server.start()
    assert _answers(place)
    server.stop()
    assert not place.exists()


def test_a_path_longer_than_a_socket_may_have_is_served(tmp_path: Path, registry: CollectorRegistry) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "metrics.sock"
    server = MetricsServer(deep, registry)
    deep.parent.parent.mkdir()
    server.start()
    assert "devgw_test" in fetch(deep, "text/plain")
    server.stop()


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="do not answer just now: No such file") as caught:
        fetch(tmp_path / "metrics.sock", "")
    assert caught.value.code == "metrics.unanswered"


def test_an_answer_cut_off_is_said(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "metrics.sock"))
    listener.listen()

    def hang_up() -> None:
        listener.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    with pytest.raises(EngineError, match="do not answer just now"):
        fetch(tmp_path / "metrics.sock", "")
    listener.close()


def test_the_textfile_is_replaced_whole(tmp_path: Path, registry: CollectorRegistry) -> None:
    """node_exporter reads it under another account, and never half of it."""
    place = tmp_path / "devgw.prom"
    place.write_text("old")
    with place.open() as old:
        write_textfile(place, registry)
        assert old.read() == "old"
    assert "devgw_test 7.0" in place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [place]
