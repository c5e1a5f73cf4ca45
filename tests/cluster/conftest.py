"""Gateways before the cluster of `tests/setup/with_cluster`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.environments import NODES, cluster, cluster_variables, node_is
from tests.support.gateway_process import GatewayProcess, poll

NODE_SECONDS = 60


@dataclass(frozen=True)
class Site:
    """A gateway that serves, and the notebook password of alice, whose environment has a GPU."""

    gateway: GatewayProcess
    password: str


@pytest.fixture
def fresh_gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway nobody else uses, initialised and not serving. Its nodes answer again afterwards."""
    gateway = GatewayProcess(tmp_path, cluster_variables())
    try:
        gateway.devgw("init")
        yield gateway
    finally:
        for node in NODES:
            cluster("heal", node)
        for node in NODES:
            poll(lambda name=node: node_is(name, "True"), f"{node} ready again", NODE_SECONDS)
        gateway.close()


@pytest.fixture
def site(fresh_gateway: GatewayProcess) -> Site:
    return served(fresh_gateway)


def served(gateway: GatewayProcess) -> Site:
    """Have alice served, with a GPU, once nothing is done about it any more."""
    password = gateway.create("alice", "--gpu", "1")
    gateway.serve()
    until_healed(gateway)
    return Site(gateway, password)


def until_healed(gateway: GatewayProcess) -> None:
    """Wait until alice's environment was made anew, once: its GPU is made up, so that it finds it lost."""
    healed = ("audit", "log", "--action", "environment.healed")
    poll(lambda: "environment.healed" in gateway.devgw(*healed).stdout, "alice's environment made anew", 90)
