"""Specifications and objects of the API for the tests beside this, in the shapes a cluster of 1.20 wrote them."""

from pathlib import Path
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.nodes import affinity_of
from gateway.engines.kubernetes.pod import pod_body
from gateway.engines.kubernetes.volumes import volumes_of
from gateway.gpu_requests import parse_gpu_request
from gateway.model import EnvironmentRef, EnvironmentSpec, Limits, Mount

ALICE = EnvironmentRef.parse("alice")
SETTINGS = KubernetesSettings(datasets={"imagenet": "pvc:imagenet"})
_STATE = Path("/var/lib/devgw")


def spec_of(handle: str = "alice", **changes: Any) -> EnvironmentSpec:
    """Return a specification as the lifecycle makes it."""
    ref = EnvironmentRef.parse(handle)
    config, volumes = _STATE / "environments" / "config", _STATE / "volumes"
    values: dict[str, Any] = {
        "limits": Limits(8 * 2**30, 4.0, 4096, 2**30),
        "mounts": (
            Mount(_STATE / "environments" / "run", "/run/devgw"),
            Mount(config, "/etc/devgw/env", read_only=True),
            Mount(config / "passwd", "/etc/passwd", read_only=True),
            Mount(volumes / "home", f"/home/{ref.user}"),
            Mount(volumes / "checkpoints", "/checkpoints"),
            Mount(Path("/srv/imagenet"), "/datasets/imagenet", read_only=True),
        ),
        "variables": {"DEVGW_USER": str(ref.user)},
    }
    return EnvironmentSpec(ref, 20001, 20001, "devgw/env:cpu", **{**values, **changes})


def made_pod(
    spec: EnvironmentSpec, settings: KubernetesSettings = SETTINGS, nodes: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Return the pod of a specification."""
    asked = parse_gpu_request(spec.gpu_request)
    volumes = volumes_of(spec, "lab1", settings, "secret-of-alice")
    return pod_body(spec, asked, "lab1", settings, volumes, affinity_of(spec, asked, nodes, settings))


def node(name: str, *, gpus: int = 2, ready: str = "True", model: str = "NVIDIA-H200", **spec: Any) -> dict[str, Any]:
    """Return a node."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "nvidia.com/gpu.product": model}},
        "spec": spec,
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": str(gpus)},
            "allocatable": {"cpu": "15500m", "memory": "62Gi", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
        },
    }


def pod_in(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """Return a pod whose container is in a state."""
    containers = {} if state is None else {"containerStatuses": [{"name": "environment", "state": state}]}
    return {
        "metadata": {
            "name": "devgw-alice-main-0",
            "uid": "u1",
            "annotations": {"devgw.org/spec-digest": "d" * 64, "devgw.org/gpus": "GPU-0a1b2c3d"},
            "ownerReferences": [{"kind": "Secret", "uid": "r1"}],
        },
        "spec": {"nodeName": "n1"},
        "status": {**containers, **status},
    }


def record(**annotations: str) -> dict[str, Any]:
    """Return the Secret that such a pod was made from."""
    written = {"devgw.org/spec-digest": "d" * 64, "devgw.org/image": "devgw/env:cpu"}
    noted = {f"devgw.org/{key}": value for key, value in annotations.items()}
    return {
        "metadata": {
            "name": "devgw-alice-main-0",
            "uid": "r1",
            "labels": {"devgw.org/uid": "20001"},
            "annotations": {**written, **noted},
        }
    }
