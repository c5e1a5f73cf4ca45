"""docs/monitoring/ for real: Debian's Prometheus reads a gateway through ssh and from a file; dashboards show it.

The gateway is whole, on a real engine; its GPUs are made up and answered for by the stand-in for the driver's library.
"""

import json
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from devgw_runner.metrics.prometheus import PrometheusSink
from devgw_runner.metrics.record import Record

import policies
from tests.engine.made_up_gpus import MADE_UP_GPUS
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.host_resources import free_port
from tests.support.nvml_standin.library import build

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
RULES = MONITORING / "prometheus"
DASHBOARDS = sorted((MONITORING / "grafana").glob("*.json"))
RUN = "resnet"
MONITOR = """
[roles.monitor]
permit_open = ["devgw:9464"]
[[grants]]
users = ["bob"]
roles = ["member", "monitor"]
"""
"""Bob holds an idle GPU and reads the metrics."""


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        client = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            answer = json.loads(client.getresponse().read())
        finally:
            client.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def targets(self) -> dict[str, str]:
        return {one["labels"]["job"]: one["health"] for one in self.ask("targets")["activeTargets"]}


@contextmanager
def running(*command: str, log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield
        assert process.poll() is None, log.read_text()[-2000:]
    finally:
        process.terminate()
        process.wait(timeout=60)


def gpu_of(gateway: GatewayProcess, user: str) -> str:
    return str(gateway.devgw_json("show", user)["environment"]["gpus"][0])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with GPUs at work and idle ones, a broken one, and a woken environment."""
    root = tmp_path_factory.mktemp("gw")
    facts = root / "facts"
    gpus = ["driver 580.1", *(f"gpu {uuid} 81920 0 NVIDIA H100" for uuid in MADE_UP_GPUS)]
    facts.write_text("\n".join(gpus) + "\n")
    (root / "textfiles").mkdir()
    made = GatewayProcess(
        root,
        engine_variables()
        | {
            "LD_LIBRARY_PATH": str(build(root)),
            "NVML_STANDIN": str(facts),
            "DEVGW_METRICS_TEXTFILE": str(root / "textfiles" / "devgw.prom"),
            "DEVGW_METRICS_INTERVAL": "1s",
            "DEVGW_AUDIT_HEAD_INTERVAL": "1s",
            "DEVGW_GPUS_SAMPLE_INTERVAL": "1s",
            "DEVGW_GPUS_START_WAIT": "1s",
        },
    )
    try:
        made.devgw("init")
        (root / "etc" / "policy.toml").write_text(
            (Path(policies.__file__).parent / "default.toml").read_text() + MONITOR
        )
        made.create("alice", "--gpu", "1")
        made.create("bob", "--gpu", "1")
        idle = gpu_of(made, "bob")
        loads = [f"load {uuid} {0 if uuid == idle else 71} 20480 310000 61" for uuid in MADE_UP_GPUS]
        facts.write_text("\n".join([*gpus, *loads]) + "\n")
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def prometheus(gateway: GatewayProcess) -> Iterator[Prometheus]:
    """Prometheus with the rules of docs/monitoring, reading a tunnel, and node_exporter with the textfiles."""
    root, port, node = gateway.root, free_port(), free_port()
    sink = PrometheusSink("textfile", root / "textfiles" / "training.prom", RUN)
    sink.write(Record("val", 900, 3, 0.9))
    sink.write(Record("train", 1000, 3, 0.7, learning_rate=1e-3, step_seconds=0.2, mfu=0.41, memory_bytes=2**34))
    sink.close()
    with ExitStack() as stack:
        tunnel = stack.enter_context(gateway.tunnel("bob", "devgw:9464"))
        config = yaml.safe_load((RULES / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES / "rules.yml")]
        places = {"devgw": tunnel, "node": node}
        config["scrape_configs"] = [
            job | {"static_configs": [{"targets": [f"127.0.0.1:{places[job['job_name']]}"]}]}
            for job in config["scrape_configs"]
            if job["job_name"] in places
        ]
        (root / "prometheus.yml").write_text(yaml.safe_dump(config))
        stack.enter_context(
            running(
                "prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
                f"--collector.textfile.directory={root / 'textfiles'}", f"--web.listen-address=127.0.0.1:{node}",
                log=root / "node.log",
            )
        )  # fmt: skip
        stack.enter_context(
            running(
                "prometheus", f"--config.file={root / 'prometheus.yml'}", f"--storage.tsdb.path={root / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}", log=root / "prometheus.log",
            )
        )  # fmt: skip
        made = Prometheus(port)
        poll(lambda: _is_up(made), f"both targets (see {root}/prometheus.log)")
        gateway.devgw("stop", "alice")
        assert gateway.ssh("alice", "true").returncode == 0  # wakes it
        gateway.ssh("mallory", "true")
        yield made


def _is_up(prometheus: Prometheus) -> bool:
    try:
        return list(prometheus.targets().values()) == ["up", "up"]
    except (OSError, ValueError):  # it is starting, and says so in a word that is no JSON
        return False


@pytest.mark.engine
def test_prometheus_reads_the_gateway_through_ssh_and_from_the_file(
    gateway: GatewayProcess, prometheus: Prometheus
) -> None:
    """The same numbers on both ways; the counters have what happened; the journal says who reads."""
    poll(lambda: len(prometheus.query('devgw_gpu_lease_info{user="alice"}')) == 2, "alice's lease, from both")
    (lease, *_) = prometheus.query('devgw_gpu_lease_info{user="alice"}')
    assert lease["metric"]["UUID"] in MADE_UP_GPUS
    poll(lambda: prometheus.query('devgw_logins_total{result="refused"} > 0'), "mallory's refused login")
    poll(lambda: prometheus.query('devgw_gpu_used_seconds_total{user="alice"} > 0'), "alice's seconds of use")
    poll(lambda: prometheus.query("devgw_environment_wake_seconds_count > 0"), "the time it took to wake alice's")
    opened = gateway.devgw("audit", "log", "--action", "forward.opened", "--user", "bob", "-o", "json").stdout
    assert '"destination":"devgw:9464"' in opened


def _queries() -> Iterator[tuple[str, str, str]]:
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield path.stem, f"{panel['title']} {target['refId']}", target["expr"]


def _filled(expression: str, gateway: GatewayProcess) -> str:
    """Put what Grafana would in the place of its variables."""
    values = {"UUID": gpu_of(gateway, "bob"), "user": "alice", "run": RUN, "__rate_interval": "30s", "__range": "1h"}
    filled = re.sub(r"\$(\w+)", lambda match: values[match[1]], expression)
    assert "$" not in filled
    return filled


@pytest.mark.engine
@pytest.mark.parametrize(("board", "panel", "expression"), list(_queries()), ids=lambda text: text[:40])
def test_every_query_of_every_dashboard_has_series(
    gateway: GatewayProcess, prometheus: Prometheus, board: str, panel: str, expression: str
) -> None:
    """A name that is misspelt, or a join that finds nothing, shows here and not on somebody's empty wall."""
    filled = _filled(expression, gateway)
    poll(lambda: prometheus.query(filled), f"{board}: {panel}")


@pytest.mark.engine
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_variables_of_a_dashboard_have_values(prometheus: Prometheus, path: Path) -> None:
    """label_values(series, label) is Grafana's; Prometheus is asked for the same."""
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert match
            assert prometheus.ask(f"label/{match[2]}/values", **{"match[]": match[1]})


@pytest.mark.engine
def test_the_rules_are_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def health() -> set[str]:
        return {rule["health"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}

    poll(lambda: health() == {"ok"}, "every rule evaluated")


@pytest.mark.parametrize("verb", ["check", "test"])
def test_promtool_is_content_with_the_rules(verb: str) -> None:
    """`test` runs rules_test.yml: each alert in a case where it fires and in one where it is silent."""
    file = "rules.yml" if verb == "check" else "rules_test.yml"
    done = subprocess.run(
        ["promtool", verb, "rules", file], cwd=RULES, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_is_content_with_where_prometheus_looks() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=RULES, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("profile", [(), ("--profile", "gpu")], ids=["without GPUs", "with GPUs"])
def test_compose_takes_the_file_and_nothing_listens_beyond_loopback(profile: tuple[str, ...]) -> None:
    """Debian's Compose, and so any newer one; what is mounted from here is here; Prometheus looks where they listen."""
    command = ["docker-compose", "-f", "compose.yaml", *profile, "config"]
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() >= {"prometheus", "grafana", "node-exporter"} | ({"dcgm-exporter"} if profile else set())
    shown = yaml.safe_load((RULES / "prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in shown for one in job["static_configs"] for target in one["targets"]}
    for name, service in services.items():
        assert "ports" not in service
        words = [*service.get("command", []), *service.get("environment", {}).values()]
        [listening] = [word for word in map(str, words) if "127.0.0.1" in word]
        if name.endswith("exporter"):
            assert f"localhost:{listening.rpartition(':')[2]}" in targets
        for volume in service.get("volumes", []):
            source = Path(str(volume).partition(":")[0])
            assert not source.is_relative_to(MONITORING) or source.is_dir(), source


def test_grafana_is_given_what_compose_mounts_and_where_prometheus_listens() -> None:
    """Grafana itself is not run: its provisioning names the mounted dashboards, and a source of their kind."""
    services = yaml.safe_load((MONITORING / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[1::-1] for volume in services["grafana"]["volumes"])
    provisioning = MONITORING / mounts["/etc/grafana/provisioning"]
    [provider] = yaml.safe_load((provisioning / "dashboards" / "devgw.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    assert sorted((MONITORING / mounts[provider["options"]["path"]]).glob("*.json")) == DASHBOARDS
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    [listening] = [word for word in services["prometheus"]["command"] if word.startswith("--web.listen-address=")]
    assert source["url"] == f"http://localhost:{listening.rpartition(':')[2]}"
    for board in (json.loads(path.read_text()) for path in DASHBOARDS):
        assert not board.keys() & {"__inputs", "id"}  # which an import by hand would ask about, and provisioning cannot
        [asked] = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
        assert asked["query"] == source["type"]


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    rules = [rule for group in yaml.safe_load((RULES / "rules.yml").read_text())["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    cases = [case for test in yaml.safe_load((RULES / "rules_test.yml").read_text())["tests"]
             for case in test.get("alert_rule_test", [])]  # fmt: skip
    for name, rule in alerts.items():
        assert {"summary", "action"} == set(rule["annotations"])
        outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        assert outcomes == {True, False}, name


def test_dashboards_are_told_apart_and_ask_for_their_prometheus() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 4
    for board in boards:
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
        assert len(set(places)) == len(places)
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)
