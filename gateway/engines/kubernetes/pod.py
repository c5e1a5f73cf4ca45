"""An EnvironmentSpec as a pod. Pure: nothing is asked or made.

The hardening stands here as one readable body: the level "restricted" of the Pod Security Standards, and more.
"""

from collections.abc import Mapping
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.digest import digest_of
from gateway.engines.kubernetes.names import (
    DIGEST,
    EGRESS,
    FILES,
    GPU_COUNT,
    IMAGE,
    POD,
    UID,
    labels_of,
    object_name,
)
from gateway.engines.kubernetes.volumes import Volumes
from gateway.engines.variables import refuse_reserved
from gateway.errors import EngineError
from gateway.gpu_requests import GpuRequest
from gateway.model import Egress, EnvironmentSpec

CONTAINER = "environment"
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
_AWAY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_NO_NAMES = "127.0.0.1"  # dnsPolicy None wants a server; none listens there


def resource_of(asked: GpuRequest, settings: KubernetesSettings) -> str:
    """Name the extended resource that a request for GPUs takes from a node."""
    return f"{settings.mig_resource_prefix}{asked.profile}" if asked.profile else settings.gpu_resource


def pod_body(
    spec: EnvironmentSpec,
    asked: GpuRequest,
    gateway_id: str,
    settings: KubernetesSettings,
    volumes: Volumes,
    affinity: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the pod of an environment, without its owner.

    Raises:
        EngineError: `variable.reserved`; `engine.unconfined`, for one that would be root.
    """
    refuse_reserved(spec.variables)
    if spec.uid == 0:
        raise EngineError(
            "engine.unconfined", "an environment would be root", "run the gateway as another user, or give users uids"
        )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": object_name(gateway_id, spec.ref),
            "labels": {**labels_of(gateway_id, spec.ref), UID: str(spec.uid)},
            "annotations": {DIGEST: digest_of(spec), GPU_COUNT: str(asked.count)},
        },
        "spec": {
            "restartPolicy": "Never",  # the gateway starts environments, after it has seen the GPUs
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": spec.ref.hostname,
            "setHostnameAsFQDN": False,
            **_names(spec.egress, settings.dns_servers),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": spec.uid,
                "runAsGroup": spec.gid,
                "fsGroup": spec.gid,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": [{"key": key, "operator": "Exists", "effect": "NoExecute"} for key in _AWAY],
            "affinity": dict(affinity),
            "nodeSelector": dict(settings.node_selector),
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
            "volumes": list(volumes.volumes),
            "containers": [_container(spec, asked, settings, volumes)],
        }
        | ({"runtimeClassName": settings.runtime_class} if settings.runtime_class else {}),
    }


def record_body(
    spec: EnvironmentSpec,
    gateway_id: str,
    pod: Mapping[str, Any],
    files: Mapping[str, str],
    written: str,
    directory: str,
) -> dict[str, Any]:
    """Return the Secret that is an environment: its files, what it was made from, and the pod that a start makes.

    `files` are base64 and come from `directory`; `written` is the pod as JSON.
    """
    about = {IMAGE: spec.image, EGRESS: str(spec.egress), FILES: directory, POD: written}
    annotations = {**pod["metadata"]["annotations"], **about}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": object_name(gateway_id, spec.ref),
            "labels": {**labels_of(gateway_id, spec.ref), UID: str(spec.uid)},
            "annotations": annotations,
        },
        "data": dict(files),
    }


def _container(
    spec: EnvironmentSpec, asked: GpuRequest, settings: KubernetesSettings, volumes: Volumes
) -> dict[str, Any]:
    # with GPUs the device plugin says which, and a value of ours would win over its own
    variables = dict(spec.variables) if asked.count else {**spec.variables, VISIBLE_DEVICES: "void"}
    amounts = {"memory": str(spec.limits.memory_bytes), "cpu": f"{round(spec.limits.cpus * 1000)}m"}
    if asked.count:
        amounts[resource_of(asked, settings)] = str(asked.count)
    return {
        "name": CONTAINER,
        "image": f"{settings.image_prefix}{spec.image}",
        "imagePullPolicy": settings.image_pull_policy,
        "env": [{"name": name, "value": value.replace("$", "$$")} for name, value in variables.items()],
        "resources": {"limits": amounts, "requests": amounts},
        "securityContext": {
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": spec.read_only_root,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": list(volumes.mounts),
    }


def _names(egress: Egress, dns_servers: tuple[str, ...]) -> dict[str, Any]:
    """Return who answers for host names: nobody without egress."""
    if egress == Egress.NONE:
        return {"dnsPolicy": "None", "dnsConfig": {"nameservers": [_NO_NAMES]}}
    if dns_servers:
        return {"dnsPolicy": "None", "dnsConfig": {"nameservers": list(dns_servers)}}
    return {"dnsPolicy": "ClusterFirst"}
