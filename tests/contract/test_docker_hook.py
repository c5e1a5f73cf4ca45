"""GPUs through the runtime hook, where an engine has no CDI: the real daemon calls one that keeps what it was told."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from gateway.engines.docker.engine import DockerEngine
from gateway.model import EnvironmentRef
from tests.contract.subject import EngineUnderTest
from tests.fakes.breaking_proxy import breaking_proxy

pytestmark = [pytest.mark.engine, pytest.mark.docker]

ALICE = EnvironmentRef.parse("alice")


def without_cdi(request: str, content: bytes) -> bytes:
    """Have the daemon say what one says that is older than CDI and has NVIDIA's runtime."""
    if request != "GET /info":
        return content
    info = json.loads(content)
    runtimes = {**info["Runtimes"], "nvidia": {"path": "nvidia-container-runtime"}}
    return json.dumps({**info, "CDISpecDirs": [], "DiscoveredDevices": [], "Runtimes": runtimes}).encode()


@pytest.fixture
def hooked(real: EngineUnderTest, tmp_path: Path) -> Iterator[DockerEngine]:
    """Yield the engine of the same gateway on a daemon that has the hook and no CDI."""
    assert isinstance(real.engine, DockerEngine)
    with breaking_proxy(tmp_path, os.environ["DOCKER_HOST"], answer_of=without_cdi) as url:
        engine = DockerEngine(url, real.engine.gateway_id)
        yield engine
        engine.close()


def told(real: EngineUnderTest) -> dict[str, Any] | None:
    """Return what the hook was told of the only container: its arguments and the OCI configuration."""
    assert isinstance(real.engine, DockerEngine)
    api = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")
    [listed] = api.containers(all=True, filters={"label": f"devgw.gateway={real.engine.gateway_id}"})
    found = Path(os.environ["DEVGW_TEST_HOOK_RECORDS"]) / f"{listed['Id']}.json"
    if not found.exists():
        return None
    return json.loads(found.read_text()) | {"arguments": found.with_suffix(".arguments").read_text().split()}


def test_the_hook_is_asked_for_exactly_the_leased_gpus(real: EngineUnderTest, hooked: DockerEngine) -> None:
    """The image says NVIDIA_VISIBLE_DEVICES=all; the hook, which obeys the variable, sees the lease."""
    assert real.gpu is not None
    hooked.create(real.spec(gpus=(real.gpu,)))
    hooked.start(ALICE)
    seen = told(real)
    assert seen is not None
    assert seen["arguments"] == ["prestart"]
    # the daemon says it once more, after what the container's own specification says
    visible = {line for line in seen["process"]["env"] if line.startswith("NVIDIA_VISIBLE_DEVICES=")}
    assert visible == {f"NVIDIA_VISIBLE_DEVICES={real.gpu}"}


def test_without_a_gpu_the_hook_is_not_asked(real: EngineUnderTest, hooked: DockerEngine) -> None:
    """And a default nvidia runtime, which would obey the image's variable, reads `void`."""
    hooked.create(real.spec())
    hooked.start(ALICE)
    assert told(real) is None


def test_the_fallback_is_reported_with_its_risk(hooked: DockerEngine) -> None:
    """An administrator reads why, in `devgw init` and `devgw doctor`."""
    report = hooked.report()
    assert report.gpu_injection == "runtime-hook"
    assert any("the engine has no CDI" in note and "can lose them" in note for note in report.notes)
