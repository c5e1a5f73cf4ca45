"""docs/monitoring/compose.yaml, started: Prometheus and node_exporter as shipped, beside a gateway that serves.

Grafana and dcgm-exporter are not run: neither program is in Debian, and the second needs a GPU. All services have one
container's network in place of the host's, for their ports are fixed and the host may have a Prometheus of its own.
"""

import fcntl
import json
import os
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from tests.support.gateway_process import GatewayProcess, poll
from tests.support.monitoring_images import images
from tests.support.page_site import POLICY, begin
from tests.support.processes import running

pytestmark = [pytest.mark.engine, pytest.mark.docker]
MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
RULES = yaml.safe_load((MONITORING / "prometheus" / "rules.yml").read_text())["groups"]
MONITOR = """
[roles.monitor]
permit_open = ["devgw:9464"]
[[grants]]
users = ["bob"]
roles = ["monitor"]
"""
STARTED = ("prometheus", "node-exporter")
SCRAPE_SECONDS = 90
"""Prometheus looks every 15 s, as shipped."""


@dataclass(frozen=True)
class Host:
    """What stands for the gateway's host: a network of its own, which the tests enter."""

    pid: int

    @property
    def entry(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net"]

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask Prometheus where it listens as shipped."""
        address = f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        command = [*self.entry, "curl", "-sS", "--max-time", "20", address]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        answer = json.loads(done.stdout) if done.returncode == 0 else {"status": done.stderr.decode()}
        return answer["data"] if answer["status"] == "success" else None

    def query(self, expression: str, **parameters: str) -> list[dict[str, Any]]:
        found = self.ask("query", query=expression, **parameters)
        return list(found["result"]) if found else []

    def targets(self) -> dict[str, str]:
        found = self.ask("targets")
        return {one["labels"]["job"]: one["health"] for one in found["activeTargets"]} if found else {}

    def listening(self) -> set[str]:
        """Return the addresses that anything listens at."""
        done = subprocess.run([*self.entry, "ss", "-Hltn"], capture_output=True, text=True, timeout=60, check=True)
        return {line.split()[3].rpartition(":")[0] for line in done.stdout.splitlines()}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    root = tmp_path_factory.mktemp("gw")
    (root / "textfiles").mkdir()
    variables = {"DEVGW_METRICS_TEXTFILE": str(root / "textfiles" / "devgw.prom"), "DEVGW_METRICS_INTERVAL": "1s"}
    served = begin(root, ("alice", "bob"), POLICY + MONITOR, **variables)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def client() -> docker.APIClient:
    return docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")


@contextmanager
def alone() -> Iterator[None]:
    """Let no other run on this machine have the images' names at the same time."""
    with (Path(tempfile.gettempdir()) / "devgw-test-monitoring.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def a_host(client: docker.APIClient) -> Iterator[tuple[str, Host]]:
    """Have a container without any network but its own loopback."""
    config = client.create_host_config(network_mode="none")
    made = client.create_container(
        os.environ["DEVGW_TEST_IMAGE"], ["infinity"], entrypoint=["sleep"], host_config=config, user="0"
    )["Id"]
    try:
        client.start(made)
        yield made, Host(client.inspect_container(made)["State"]["Pid"])
    finally:
        client.remove_container(made, force=True)


class Compose:
    """The file as shipped, in another network."""

    def __init__(self, root: Path, network: str, textfiles: Path) -> None:
        services: dict[str, Any] = {name: {"network_mode": f"container:{network}"} for name in STARTED}
        if _is_private("/"):  # as in a container; systemd makes it shared, and Docker would refuse the other
            services["node-exporter"]["volumes"] = ["/:/host:ro"]
        self._other = root / "network.yaml"
        self._other.write_text(yaml.safe_dump({"services": services}))
        self._environ = os.environ | {"DEVGW_TEXTFILE_DIR": str(textfiles)}
        self._project = f"devgwtest{os.getpid()}"

    def run(self, *words: str) -> str:
        files = ["-f", str(MONITORING / "compose.yaml"), "-f", str(self._other)]
        command = ["docker-compose", "-p", self._project, *files, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=self._environ, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def _is_private(place: str) -> bool:
    done = subprocess.run(["findmnt", "-no", "PROPAGATION", place], capture_output=True, timeout=60, check=True)
    return done.stdout.strip() == b"private"


@pytest.fixture(scope="module")
def started(
    gateway: GatewayProcess, client: docker.APIClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Host, Compose]]:
    """Have both services up, and the tunnel that prometheus.yml speaks of."""
    file = yaml.safe_load((MONITORING / "compose.yaml").read_text())
    names = {name: str(file["services"][name]["image"]) for name in STARTED}
    with ExitStack() as stack:
        stack.enter_context(alone())
        stack.enter_context(images(client, names))
        network, host = stack.enter_context(a_host(client))
        own = f"nsenter --net=/proc/{os.getpid()}/ns/net socat - TCP:127.0.0.1:{gateway.port}"
        forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", "127.0.0.1:9464:devgw:9464"]
        ssh = ["ssh", *gateway.client_options("bob"), "-o", f"ProxyCommand={own}", *forward, "bob@127.0.0.1"]
        stack.enter_context(running([*host.entry, *ssh], stdin=subprocess.DEVNULL))
        compose = Compose(tmp_path_factory.mktemp("compose"), network, gateway.root / "textfiles")
        stack.callback(compose.run, "down", "--volumes")
        compose.run("up", "-d", *STARTED)
        yield host, compose


def test_prometheus_reads_the_gateway_both_ways_as_shipped(started: tuple[Host, Compose]) -> None:
    """By the tunnel and by the textfile, which node_exporter reads; the GPU's exporter is not there."""
    host, _compose = started
    wanted = {"devgw": "up", "node": "up", "dcgm": "down"}
    poll(lambda: host.targets() == wanted, "the targets", SCRAPE_SECONDS)
    instances = poll(
        lambda: len(found := {one["metric"]["instance"] for one in host.query("devgw_build_info")}) == 2 and found,
        "the gateway's series from both",
        SCRAPE_SECONDS,
    )
    assert instances == {"localhost:9464", "localhost:9100"}
    assert {one["metric"]["job"] for one in host.query("devgw_build_info")} == {"devgw"}
    poll(lambda: host.query('devgw_environments{state="stopped"} == 2'), "what the gateway knows", SCRAPE_SECONDS)
    assert host.query('node_filesystem_size_bytes{mountpoint="/"} > 0'), "the host's own disk"
    assert host.query("node_textfile_mtime_seconds")
    assert host.query("node_textfile_scrape_error == 0")


def test_every_shipped_rule_is_loaded_and_none_cries_wolf(started: tuple[Host, Compose]) -> None:
    """Each is evaluated without an error; a gateway that is well fires no alert."""
    host, _compose = started

    def rules() -> list[dict[str, Any]]:
        found = host.ask("rules")
        return [rule for group in found["groups"] for rule in group["rules"]] if found else []

    poll(lambda: {rule["health"] for rule in rules()} == {"ok"}, "every rule evaluated", SCRAPE_SECONDS)
    shipped = {rule.get("alert") or rule["record"] for group in RULES for rule in group["rules"]}
    assert {rule["name"] for rule in rules()} == shipped
    found = host.ask("alerts")["alerts"]
    assert [one["labels"]["alertname"] for one in found if one["state"] == "firing"] == []


def test_nothing_listens_beyond_loopback(started: tuple[Host, Compose]) -> None:
    host, _compose = started
    poll(lambda: host.targets().get("node") == "up", "both", SCRAPE_SECONDS)
    assert host.listening() <= {"127.0.0.1", "[::1]"}


def test_what_was_collected_outlives_its_container(started: tuple[Host, Compose]) -> None:
    """Prometheus keeps its series on the volume: made anew, it answers about before."""
    host, compose = started
    poll(lambda: host.query("devgw_build_info"), "series", SCRAPE_SECONDS)
    before = time.time()
    compose.run("rm", "--stop", "--force", "prometheus")  # Debian 12's Compose fails at --force-recreate on this engine
    compose.run("up", "-d", "prometheus")
    poll(lambda: host.query("devgw_build_info", time=str(before)), "the series of before", SCRAPE_SECONDS)
