"""The whole walk: alice works, her node is pulled, she is told, it is declared lost, she goes on elsewhere."""

import subprocess
import sys
from typing import Any

import pytest

from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from tests.cluster.conftest import NODE_SECONDS, Site
from tests.cluster.environments import NODES, cluster, node_is, objects
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.notebook_client import NotebookClient

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]
_SCRIPT = """
import os
given = dict(one.partition("=")[::2] for one in open("/proc/1/environ").read().split("\\0"))
print(given["NVIDIA_VISIBLE_DEVICES"], open(os.path.expanduser("~/notes")).read())
"""


def shown(gateway: GatewayProcess) -> dict[str, Any]:
    """Return alice's environment as `devgw show` has it."""
    found: dict[str, Any] = gateway.devgw_json("show", "alice")["environment"]
    return found


def records(gateway: GatewayProcess, code: str = "") -> list[Record]:
    """Return what the journal has, of one code or of all."""
    return [one for one in stream(gateway.root / "state" / "journal", Filter()) if code in {"", one.code}]


@pytest.mark.emits("environment.unreachable", "node.lost", "environment.stopped", "lease.released", "lease.granted")
def test_alice_goes_on_elsewhere_with_her_files(site: Site) -> None:
    """Volumes are directories that both nodes see, as a network's storage class would give them.

    Until an administrator says that the node is dead, nobody starts her environment a second time; what was cut off
    ends when its node is back.
    """
    gateway = site.gateway
    assert gateway.ssh("alice", "cat >notes; echo made >/workspace/made", stdin=b"kept").returncode == 0
    before = shown(gateway)
    node, elsewhere = before["node"], next(name for name in NODES if name != before["node"])
    (gpu,) = before["gpus"]
    assert _in_notebook(site) == f"{gpu} kept"

    cluster("cut", node)
    poll(lambda: node_is(node, "Unknown"), f"{node} unreachable", NODE_SECONDS)
    poll(lambda: shown(gateway)["state"] == "unknown", "the gateway knows", NODE_SECONDS)
    told = gateway.ssh("alice", "true")
    assert told.returncode == 125
    assert f"node {node} does not answer" in told.stderr.decode()
    for act in (("stop", "alice"), ("start", "alice"), ("delete", "alice", "--force", "--yes")):
        refused = gateway.devgw(*act, expect=None)
        assert refused.returncode != 0
        assert f"node {node} does not answer" in refused.stderr
    poll(lambda: records(gateway, "environment.unreachable"), "the journal knows", 120)
    assert len(objects("pods")) == 1

    gateway.devgw("node", "lost", elsewhere, "--yes", expect=6)
    gateway.devgw("node", "lost", node, "--yes")
    woken = gateway.ssh("alice", "cat notes /workspace/made")
    assert woken.stdout == b"keptmade\n", woken.stderr
    after = shown(gateway)
    assert (after["node"], after["state"]) == (elsewhere, "running")
    assert after["gpus"] != before["gpus"]
    assert _in_notebook(site) == f"{after['gpus'][0]} kept"

    assert _running_on(node), "what was cut off ran on: the node is the only one that could end it"
    cluster("heal", node)
    poll(lambda: node_is(node, "True"), f"{node} ready again", NODE_SECONDS)
    poll(lambda: not _running_on(node), "what was cut off has ended", NODE_SECONDS)
    assert gateway.ssh("alice", "cat notes").stdout == b"kept"
    _journal_tells(gateway, node)


def _in_notebook(site: Site) -> str:
    with site.gateway.tunnel("alice") as port:
        browser = NotebookClient(f"http://localhost:{port}")
        browser.login(site.password)
        return browser.execute(_SCRIPT).strip()


def _running_on(node: str) -> set[str]:
    """Return the containers of environments that run on a node, as its runtime knows them.

    One that has ended is known for a minute more, until the kubelet sweeps.
    """
    of_environments = _runtime(node, "containers", "ls", "-q", 'labels."io.kubernetes.container.name"==environment')
    return of_environments & _runtime(node, "tasks", "ls", "-q")


def _runtime(node: str, *words: str) -> set[str]:
    ctr = ("ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", *words)
    command = [sys.executable, "-m", "tests.cluster", "on", node, *ctr]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def _journal_tells(gateway: GatewayProcess, node: str) -> None:
    """Each step stands there, in order, and the chain is whole."""
    order = ("environment.created", "environment.unreachable", "node.lost", "lease.released", "environment.stopped",
             "environment.woken")  # fmt: skip
    times = [max(one.at for one in records(gateway, code)) for code in order]
    assert times == sorted(times), dict(zip(order, times, strict=True))
    (lost,) = records(gateway, "node.lost")
    assert (lost.detail["node"], lost.detail["environments"]) == (node, "alice")
    assert lost.actor["kind"] == "admin"
    (granted, again) = records(gateway, "lease.granted")[-2:]
    assert node in granted.reason
    assert node not in again.reason
    gateway.devgw("audit", "verify")
