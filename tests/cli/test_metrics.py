"""`devgw metrics` against a real `devgw serve`: what it prints is what Prometheus reads."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_process import GatewayProcess, poll


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    made = GatewayProcess(
        tmp_path, {"DEVGW_METRICS_TEXTFILE": str(tmp_path / "devgw.prom"), "DEVGW_METRICS_INTERVAL": "1s"}
    )
    made.devgw("init")
    yield made
    if made.server is not None:
        made.stop(signal.SIGKILL)


def samples(gateway: GatewayProcess) -> dict[str, float]:
    """Return the samples without labels."""
    text = gateway.devgw("metrics").stdout
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in found if not sample.labels}


def test_the_numbers_of_the_gateway_that_serves_are_printed(gateway: GatewayProcess) -> None:
    """Text, OpenMetrics and the textfile say the same; afterwards nobody answers, and that is said."""
    gateway.serve()
    assert samples(gateway)["devgw_workers"] == 1
    poll(lambda: "devgw_doctor_findings{" in gateway.devgw("metrics").stdout, "the doctor's first round")
    names = {family.name for family in open_families(gateway.devgw("metrics", "--openmetrics").stdout)}
    poll(lambda: _names(gateway.root / "devgw.prom") == names, "a textfile that says the same")
    gateway.stop()
    failed = gateway.devgw("metrics", expect=1)
    assert failed.stderr.startswith("devgw: error: the gateway's metrics do not answer just now")
    assert not (gateway.root / "run" / "metrics.sock").exists()


def test_several_workers_are_one_gateway_and_the_first_may_die(gateway: GatewayProcess) -> None:
    """Every worker's start is counted by the first; a killed one's successor answers in its place."""
    gateway.variables["DEVGW_SERVER_WORKERS"] = "2"
    gateway.serve()
    assert poll(lambda: samples(gateway).get("devgw_workers") == 2, "the metrics")
    began = samples(gateway)["devgw_start_time_seconds"]
    log = (gateway.root / "server.log").read_text()
    first = int(log.partition("worker 0 is process ")[2].split()[0])
    os.kill(first, signal.SIGKILL)

    def succeeded() -> bool:
        done = gateway.devgw("metrics", expect=None)
        return done.returncode == 0 and samples(gateway)["devgw_start_time_seconds"] > began

    poll(succeeded, "the successor's metrics")


def _names(path: Path) -> set[str]:
    text = path.read_text() if path.exists() else ""
    return {family.name for family in text_string_to_metric_families(text)}
