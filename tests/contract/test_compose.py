"""What is exported for Compose, made by Compose on the real engine: hardened as the engine itself makes it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from gateway.engines.docker.compose import compose_of
from gateway.engines.docker.engine import DockerEngine
from gateway.engines.docker.facts import Facts
from gateway.engines.docker.injection import Injection
from gateway.engines.docker.spec import container_body
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, Limits
from tests.contract.docker_subject import docker_under_test
from tests.contract.inside import Spool
from tests.support.engine_variables import engine_kind

_ALIKE = (
    *("CapDrop", "CapAdd", "Privileged", "ReadonlyRootfs", "Init", "IpcMode", "Memory", "MemorySwap", "NanoCpus"),
    *("PidsLimit", "ShmSize", "NetworkMode", "Tmpfs", "RestartPolicy", "LogConfig", "SecurityOpt"),
)
ALICE = EnvironmentRef.parse("alice")
SPEC = EnvironmentSpec(ALICE, 1001, 1001, "sha256:abc", Limits(2**30, 1.5, 64, 2**29), (), {"PRICE": "5$each"})


COMPOSE = [pytest.param("docker-compose", id="1")]
"""The major versions; the second comes with the tests' own engine. The first does not know Podman's `keep-id`."""
if engine_kind() == "podman" and "DEVGW_TEST_ROOTLESS_UID" in os.environ:
    COMPOSE.clear()
if "DEVGW_TEST_COMPOSE_2" in os.environ:
    COMPOSE.append(pytest.param(os.environ["DEVGW_TEST_COMPOSE_2"], id="2"))


@pytest.mark.engine
@pytest.mark.docker
@pytest.mark.parametrize("program", COMPOSE)
def test_compose_makes_what_the_engine_makes(tmp_path: Path, program: str) -> None:
    """Compose takes the file, the container runs, and `docker inspect` shows the same confinement; no label of ours."""
    with docker_under_test(tmp_path) as subject:
        assert isinstance(subject.engine, DockerEngine)
        api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
        spec = subject.spec(variables={"PRICE": "5$each"})
        subject.engine.create(spec)
        subject.engine.start(spec.ref)  # Podman fills in some of it only now
        [ours] = api.containers(all=True, filters={"label": f"devgw.gateway={subject.engine.gateway_id}"})
        wanted = api.inspect_container(ours["Id"])
        subject.engine.delete(spec.ref)
        file = tmp_path / "compose.yaml"
        file.write_text(yaml.safe_dump(subject.engine.compose(spec)))
        project = f"devgwtest{subject.engine.gateway_id}"
        compose = [program, "-f", str(file), "-p", project]
        _run(*compose, "config", "--quiet")
        try:
            _run(*compose, "up", "-d")
            [made] = api.containers(all=True, filters={"label": f"com.docker.compose.project={project}"})
            found = api.inspect_container(made["Id"])
            assert Spool(spec.mounts[0].source).run("echo here").text == "here\n"
        finally:
            _run(*compose, "down")
    for key in _ALIKE:
        assert _plain(found["HostConfig"][key]) == _plain(wanted["HostConfig"][key]), key
    assert _ulimits(found) == _ulimits(wanted)
    assert found["Config"]["User"] == wanted["Config"]["User"]
    assert "PRICE=5$each" in found["Config"]["Env"]
    assert "devgw.gateway" not in found["Config"]["Labels"]  # by which a gateway would take it for its own


def test_every_part_of_a_body_has_a_word_or_is_refused() -> None:
    """What the engine learns to ask for cannot be left out of an export unseen."""
    body = container_body(SPEC, "one", _facts())
    assert compose_of(SPEC, body)
    for changed in ({**body, "NewKey": 1}, {**body, "HostConfig": {**body["HostConfig"], "NewKey": 1}}):
        with pytest.raises(KeyError):
            compose_of(SPEC, changed)


def test_gpus_are_asked_for_by_their_uuid_and_egress_is_none() -> None:
    gpu = "GPU-00000000-0000-4000-8000-000000000000"
    spec = EnvironmentSpec(ALICE, 1, 1, "image", SPEC.limits, (), {}, gpus=(GpuUuid(gpu),), egress=Egress.INTERNET)
    [service] = compose_of(spec, container_body(spec, "one", _facts()))["services"].values()
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"]) == ("cdi", [f"nvidia.com/gpu={gpu}"])
    assert service["network_mode"] == "none"


def _facts() -> Facts:
    return Facts((1, 50), Injection("cdi", "as the test says"), "builtin")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def _plain(value: Any) -> str:
    """Make what means the same equal: Compose leaves empty what the engine is told in full."""
    if isinstance(value, dict) and "MaximumRetryCount" in value:
        value = value["Name"]
    if isinstance(value, dict) and "Config" in value:
        value = {**value, "Config": dict(sorted((value["Config"] or {}).items()))}
    return json.dumps(value or None, sort_keys=True)


def _ulimits(inspected: dict[str, Any]) -> list[tuple[str, int, int]]:
    return sorted((one["Name"], one["Soft"], one["Hard"]) for one in inspected["HostConfig"]["Ulimits"])
