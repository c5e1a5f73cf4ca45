"""What a gateway needs to run its environments on the tests' cluster: the settings, and the image on both nodes."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import docker

from tests.support.gateway_process import poll

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
    """Have the image of `tests/setup/with_engine` on both nodes; return its name there."""
    name = f"docker.io/{os.environ['DEVGW_TEST_IMAGE']}"
    if not all(_has_image(node, name) for node in NODES):
        archive = Path(os.environ["KUBECONFIG"]).with_name("environment-image.tar")
        client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=600)
        try:
            with archive.open("wb") as target:
                for piece in client.get_image(os.environ["DEVGW_TEST_IMAGE"]):
                    target.write(piece)
        finally:
            client.close()
        cluster("give-all", str(archive), seconds=1200)
        archive.unlink()
        for node in NODES:
            poll(lambda one=node: _has_image(one, name) and node_is(one, "True"), f"{node} with the image", 120)
    return name


def _has_image(node: str, name: str) -> bool:
    words = ("ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", "images", "ls", "-q", f"name=={name}")
    command = [sys.executable, "-m", "tests.cluster", "on", node, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return name in done.stdout


def cluster(*words: str, seconds: float = 120) -> None:
    """Act on the cluster as `python -m tests.cluster` does: `cut n1`, `kill n1/kubelet`."""
    subprocess.run([sys.executable, "-m", "tests.cluster", *words], check=True, timeout=seconds)


def kubectl(*arguments: str, text: str = "") -> str:
    """Run kubectl as the cluster's administrator; return what it printed."""
    command = ["kubectl", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def objects(kinds: str = "pods,secrets,networkpolicies,persistentvolumeclaims") -> set[str]:
    """Return what there is of devgw's in the namespace, as `kind/name`."""
    chosen = ("-n", NAMESPACE, "-l", "app.kubernetes.io/managed-by=devgw", "-o", "name")
    return set(kubectl("get", kinds, *chosen).split())


def node_is(name: str, status: str) -> bool:
    """Say whether the cluster knows a node as `True` (ready), `False` or `Unknown`."""
    path = "{.status.conditions[?(@.type=='Ready')].status}"
    return kubectl("get", "node", name, "-o", f"jsonpath={path}") == status
