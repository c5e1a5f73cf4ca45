"""The doctor on a real host: the driver answers, the specs are fresh, and inside everything fits together."""

import json
from typing import Any

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.processes import running

pytestmark = pytest.mark.gpu


def levels(report: Any) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in report["findings"]}


def test_the_host_is_asked_and_answers(gateway: GatewayProcess) -> None:
    """Nothing about driver, specs or leases is unknown, and none of it is broken."""
    found = levels(json.loads(gateway.devgw("doctor", "-o", "json", expect=None).stdout))
    for check in ("driver.answers", "driver.module", "driver.silicon", "cdi.specs", "engine.injection", "gpu.leases"):
        assert found[check] == "ok", check


def test_inside_driver_torch_and_card_fit_and_the_lease_is_seen(gateway: GatewayProcess) -> None:
    found = levels(json.loads(gateway.devgw("doctor", "alice", "-o", "json", expect=None).stdout))
    for check in ("inside.torch", "inside.driver", "inside.device", "inside.libraries", "inside.gpus"):
        assert found[check] == "ok", check


def test_alices_process_is_hers(gateway: GatewayProcess) -> None:
    """While she computes, no process on a GPU is foreign: the container is found by its control group."""
    import subprocess

    code = "import torch, sys; a = torch.ones(8, device='cuda'); print('ready', flush=True); sys.stdin.read()"
    command = gateway.ssh_command("alice", "python", "-c", f'"{code}"')
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"ready\n"
        found = levels(json.loads(gateway.devgw("doctor", "-o", "json", expect=None).stdout))
        busy.communicate(timeout=60)
    assert found["gpu.processes"] == "ok"
