"""What a gateway needs to run its environments on the tests' cluster: the settings, and the image on both nodes."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import docker

NAMESPACE = "devgw"
NODES = ("n1", "n2")


def cluster_variables() -> dict[str, str]:
    """Return DEVGW_* variables for the cluster of `tests/setup/with_cluster`; the image is imported once."""
    return {
        "DEVGW_ENGINE_KIND": "kubernetes",
        "DEVGW_KUBERNETES_KUBECONFIG": os.environ["KUBECONFIG"],
        "DEVGW_KUBERNETES_NAMESPACE": NAMESPACE,
        "DEVGW_KUBERNETES_IMAGE_PULL_POLICY": "Never",
        "DEVGW_KUBERNETES_ACCEPT_UNENFORCED_NETWORK": "true",  # the network plugin here joins pods and closes nothing
        "DEVGW_KUBERNETES_HOME_SIZE": "1GiB",
        "DEVGW_KUBERNETES_WORK_SIZE": "1GiB",
        "DEVGW_ENVIRONMENTS_IMAGE": environment_image(),
        "DEVGW_ENVIRONMENTS_MEMORY": "2GiB",
        "DEVGW_ENVIRONMENTS_CPUS": "0.9",  # a promise too: two of them fit on a node of two processors
    }


@cache
def environment_image() -> str:
    """Hand the image of `tests/setup/with_engine` to both nodes; return its name there."""
    tag = os.environ["DEVGW_TEST_IMAGE"]
    archive = Path(os.environ["KUBECONFIG"]).with_name("environment-image.tar")
    if not archive.exists():
        client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=600)
        try:
            with archive.open("wb") as target:
                for piece in client.get_image(tag):
                    target.write(piece)
        finally:
            client.close()
        command = [sys.executable, "-m", "tests.cluster", "import", str(archive)]
        subprocess.run(command, check=True, timeout=1200)
        archive.write_bytes(b"")  # the nodes have it; what says so stays
    return f"docker.io/{tag}"
