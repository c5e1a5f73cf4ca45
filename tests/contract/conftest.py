"""The engines under the contract.

A further one is an entry in `ENGINES`; in `REAL` where it runs processes, in `SEVERAL` where it has several machines.
Kubernetes is there with `DEVGW_TEST_ENGINE=kubernetes tests/setup/with_cluster`: a pod takes seconds to start and end.
Podman and Docker without root are there with `DEVGW_TEST_ENGINE=podman tests/setup/with_engine`, or `docker-rootless`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bubblewrap_subject import bubblewrap_under_test
from tests.contract.cluster_subject import cluster_under_test
from tests.contract.docker_subject import docker_under_test
from tests.contract.fake_subject import fake_under_test
from tests.contract.inside import Spool
from tests.contract.subject import EngineUnderTest, started

ENGINES = {
    "fake": fake_under_test,
    "cluster": cluster_under_test,
    "docker": docker_under_test,
    "bubblewrap": bubblewrap_under_test,
}
REAL = ["docker", "bubblewrap"]
SEVERAL = ["cluster"]
if os.environ.get("DEVGW_TEST_ENGINE") == "kubernetes":
    from tests.contract.kubernetes_subject import kubernetes_under_test

    ENGINES = {"kubernetes": kubernetes_under_test}
    REAL, SEVERAL = [], ["kubernetes"]
if os.environ.get("DEVGW_TEST_ENGINE") in {"podman", "docker-rootless"}:
    ENGINES = {os.environ["DEVGW_TEST_ENGINE"]: docker_under_test}  # the same engine of ours, before another daemon
    REAL, SEVERAL = list(ENGINES), []


def parameters(names: list[str]) -> list[object]:
    """Return pytest parameters with the marks of each engine."""
    return [pytest.param(name, marks=_marks(name)) for name in names]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.engine] if name in REAL else []
    return [*marks, pytest.mark.docker] if name == "docker" else marks


@pytest.fixture(params=parameters(list(ENGINES)))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Return each engine in turn."""
    with ENGINES[request.param](tmp_path) as under_test:
        yield under_test


@pytest.fixture(params=parameters(REAL))
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Return each engine that runs processes."""
    with ENGINES[request.param](tmp_path) as under_test:
        yield under_test


@pytest.fixture(params=parameters(SEVERAL))
def several(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EngineUnderTest]:
    """Return each engine of several machines."""
    with ENGINES[request.param](tmp_path) as under_test:
        yield under_test


@pytest.fixture
def alice(real: EngineUnderTest) -> Spool:
    """Return a way into a running environment with the plain spec."""
    return started(real)
