"""A gateway on a host with a real NVIDIA GPU and a real engine. What is absent fails: these tests are never skipped.

Needs root, `nvidia-smi`, nvidia-container-toolkit with fresh CDI specs, DOCKER_HOST, and DEVGW_TEST_IMAGE naming an
image of the CUDA profile: `devgw image build --profile cuda`. Run: `python -m pytest tests/gpu`.
"""

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.gateway_process import GatewayProcess

_UUID = re.compile(r"UUID: ((?:GPU|MIG)-[0-9a-fA-F-]+)")


def nvidia_smi(*arguments: str) -> str:
    """Run the host's own nvidia-smi."""
    return subprocess.run(["nvidia-smi", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


def uuids_in(listing: str) -> list[str]:
    """Return the UUIDs that `nvidia-smi -L` lists; a GPU with slices is listed by them."""
    found: list[str] = []
    for line in listing.splitlines():
        if match := _UUID.search(line):
            if match[1].startswith("MIG-") and found and found[-1].startswith("GPU-"):
                found.pop()
            found.append(match[1])
    return found


@pytest.fixture(scope="session")
def host_uuids() -> list[str]:
    """Return what can be leased on this host, as nvidia-smi tells it."""
    found = uuids_in(nvidia_smi("-L"))
    assert found, "nvidia-smi lists no GPU"
    return found


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A serving gateway with alice, who holds one GPU, and carol, who holds none."""
    variables = {
        "DEVGW_ENGINE_KIND": "docker",
        "DEVGW_ENGINE_DOCKER_URL": os.environ["DOCKER_HOST"],
        "DEVGW_ENVIRONMENTS_IMAGE": os.environ["DEVGW_TEST_IMAGE"],
        "DEVGW_GPUS_INVENTORY": "nvml",
        "DEVGW_GPUS_SAMPLE_INTERVAL": "1s",
    }
    made = GatewayProcess(tmp_path_factory.mktemp("gateway"), variables)
    try:
        made.devgw("init")
        made.create("alice", "--gpu", "1")
        made.create("carol")
        made.serve()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def leased(gateway: GatewayProcess) -> str:
    """Return the UUID that alice holds."""
    (uuid,) = gateway.devgw_json("show", "alice")["environment"]["gpus"]
    return str(uuid)
