"""Gateways with alice and bob in them: one on a real engine, and one before a real sshd in namespaces."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from playwright.sync_api import Browser

from tests.engine.made_up_gpus import MADE_UP_GPUS
from tests.support.chromium import chromium
from tests.support.engine_variables import SPEAK_DOCKER, engine_kind, engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.ssh_gateway import TestGateway


@dataclass(frozen=True)
class ServedUsers:
    """A running gateway and its users' notebook passwords."""

    gateway: GatewayProcess
    passwords: dict[str, str]


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    yield client
    client.close()


@pytest.fixture
def holdings(request: pytest.FixtureRequest) -> Callable[[GatewayProcess], set[str]]:
    """Return what lists everything the engine keeps that could be a gateway's."""
    if engine_kind() in SPEAK_DOCKER:
        client = request.getfixturevalue("docker_client")
        return lambda gateway: _kept_by_docker(client, gateway)
    return lambda gateway: {path.name for path in (gateway.root / "state" / "sandboxes").glob("environments/*")}


def _kept_by_docker(client: docker.APIClient, gateway: GatewayProcess) -> set[str]:
    """Return containers and networks of one gateway; others may share the engine."""
    state = str((gateway.root / "state").resolve())
    mine = {"label": f"devgw.gateway={hashlib.sha256(state.encode()).hexdigest()[:12]}"}
    mounting = [
        container
        for container in client.containers(all=True)
        if any(mount.get("Source", "").startswith(f"{state}/") for mount in container["Mounts"])
    ]
    kept = (*mounting, *client.containers(all=True, filters=mine), *client.networks(filters=mine))
    return {one["Id"] for one in kept}


@pytest.fixture(scope="session")
def served_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedUsers]:
    """Alice with a GPU, bob without, and a server in front.

    The GPU is made up, so that alice's environment finds it lost and is made anew, once; nobody may be at work then.
    """
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), engine_variables())
    try:
        gateway.devgw("init")
        passwords = {"alice": gateway.create("alice", "--gpu", "1"), "bob": gateway.create("bob")}
        gateway.serve()
        healed = ("audit", "log", "--action", "environment.healed")
        poll(lambda: "environment.healed" in gateway.devgw(*healed).stdout, "alice's environment made anew", 90)
        yield ServedUsers(gateway, passwords)
    finally:
        gateway.close()


@pytest.fixture
def gateway(served_users: ServedUsers) -> GatewayProcess:
    return served_users.gateway


@pytest.fixture
def fresh_gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway nobody else uses, initialised and not serving."""
    gateway = GatewayProcess(tmp_path, engine_variables())
    try:
        gateway.devgw("init")
        yield gateway
    finally:
        gateway.close()


@pytest.fixture
def gpus() -> tuple[str, ...]:
    return MADE_UP_GPUS


@dataclass
class Laboratory:
    """A server in front of a real sshd, without an engine; alice and bob each have a key and an environment."""

    gateway: TestGateway
    alice: Path
    bob: Path


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    gateway = TestGateway(tmp_path_factory.mktemp("gw"), max_startups="100:30:200")
    gateway.start()
    try:
        yield Laboratory(gateway, gateway.add_user("alice"), gateway.add_user("bob"))
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one module: its driver's event loop is in nobody's way afterwards."""
    with chromium() as started:
        yield started
