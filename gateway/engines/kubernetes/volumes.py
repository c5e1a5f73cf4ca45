"""Where an environment's mounts come from in a cluster: claims, memory, shared directories, or its Secret. Pure.

A mount of the specification names a path of the gateway's host. What lies below a shared directory is at that path on
every node too; all else is known by its target (docs/reference/environment-contract.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.names import claim_name, labels_of
from gateway.engines.run_directory import TARGET as RUN_TARGET
from gateway.errors import EngineError
from gateway.model import EnvironmentRef, EnvironmentSpec, Mount

CONFIG_TARGET = "/etc/devgw/env"
_WORK_TARGETS = ("/workspace", "/checkpoints", "/logs")
_DATASETS = "/datasets/"
_RUN_MIB = 64
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Volumes:
    """What a pod mounts, and the claims that have to be there first. `files` is the directory behind the Secret."""

    volumes: tuple[dict[str, Any], ...]
    mounts: tuple[dict[str, Any], ...]
    claims: tuple[dict[str, Any], ...] = ()
    files: Path | None = None


@dataclass(slots=True)
class _Plan:
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    mounts: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    files: Path | None = None

    def add(self, name: str, source: dict[str, Any], target: str, **options: Any) -> None:
        self.volumes.setdefault(name, {"name": name, **source})
        self.mounts.append({"name": name, "mountPath": target, **options})


def volumes_of(spec: EnvironmentSpec, gateway_id: str, settings: KubernetesSettings, secret: str) -> Volumes:
    """Say where each mount of a specification comes from.

    Raises:
        EngineError: `mount.missing`, for a mount that has no place in the cluster.
    """
    plan = _Plan()
    config = next((mount.source for mount in spec.mounts if mount.target == CONFIG_TARGET), None)
    for number, mount in enumerate(spec.mounts):
        if is_shared(mount.source, settings):
            kind = "File" if mount.source.is_file() else "Directory"
            host_path = {"hostPath": {"path": str(mount.source), "type": kind}}
            plan.add(f"shared-{number}", host_path, mount.target, readOnly=mount.read_only)
        elif mount.target == RUN_TARGET:
            plan.add("run-devgw", _memory(_RUN_MIB * _MIB), mount.target)
        elif mount.target == CONFIG_TARGET:
            plan.files = mount.source
            plan.add("files", _secret(secret), mount.target, readOnly=True)
        elif config is not None and mount.source.parent == config and not is_shared(config, settings):
            plan.add("files", _secret(secret), mount.target, readOnly=True, subPath=mount.source.name)
        elif mount.target.startswith(_DATASETS):
            _add_dataset(plan, mount, settings)
        else:
            _add_claim(plan, mount, spec, gateway_id, settings)
    for target, size in _temporaries(spec):
        plan.add(f"memory{target.replace('/', '-')}", _memory(size), target)
    return Volumes(tuple(plan.volumes.values()), tuple(plan.mounts), tuple(plan.claims), plan.files)


def is_shared(place: Path, settings: KubernetesSettings) -> bool:
    """Say whether every node has a path."""
    return any(place.is_relative_to(shared) for shared in settings.shared_dirs)


def volume_words(ref: EnvironmentRef) -> dict[str, str]:
    """Return the word of each volume that outlives a pod, by its target."""
    return {f"/home/{ref.user}": "home", **{target: target[1:] for target in _WORK_TARGETS}}


def read_files(directory: Path | None) -> dict[str, bytes]:
    """Read what goes into the Secret: plain files alone; sockets and half-written files stay behind."""
    if directory is None:
        return {}
    plain = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in plain if path.is_file() and not path.is_symlink()}


def _add_dataset(plan: _Plan, mount: Mount, settings: KubernetesSettings) -> None:
    name = mount.target.removeprefix(_DATASETS)
    source = settings.datasets.get(name)
    if source is None:
        raise EngineError(
            "mount.missing",
            f"the cluster has no volume for the dataset {name}",
            f"set kubernetes.datasets.{name} to pvc:CLAIM or to a path on the nodes",
        )
    if source.startswith("pvc:"):
        claim = {"claimName": source.removeprefix("pvc:"), "readOnly": True}
        plan.add(f"dataset-{name}", {"persistentVolumeClaim": claim}, mount.target, readOnly=True)
    else:
        plan.add(f"dataset-{name}", {"hostPath": {"path": source, "type": "Directory"}}, mount.target, readOnly=True)


def _add_claim(plan: _Plan, mount: Mount, spec: EnvironmentSpec, gateway_id: str, settings: KubernetesSettings) -> None:
    word = volume_words(spec.ref).get(mount.target)
    if word is None:
        raise EngineError(
            "mount.missing",
            f"{mount.source} is on no node, so it cannot be mounted at {mount.target}",
            "put it below one of kubernetes.shared_dirs",
        )
    is_home = word == "home"
    name = claim_name(gateway_id, spec.ref, word)
    storage_class = settings.home_class if is_home else settings.work_class
    size = settings.home_size if is_home else settings.work_size
    plan.claims.append(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": labels_of(gateway_id, spec.ref)},
            "spec": {
                "accessModes": [settings.access_mode],
                "resources": {"requests": {"storage": str(size)}},
            }
            | ({"storageClassName": storage_class} if storage_class else {}),
        }
    )
    plan.add(word, {"persistentVolumeClaim": {"claimName": name}}, mount.target, readOnly=mount.read_only)


def _temporaries(spec: EnvironmentSpec) -> Iterator[tuple[str, int]]:
    """Return what may be written without a volume. torch.compile and pip build in /tmp and load what they built."""
    yield "/tmp", spec.limits.memory_bytes // 2  # noqa: S108 a path inside
    yield "/run", _RUN_MIB * _MIB
    yield "/dev/shm", spec.limits.shm_bytes  # noqa: S108 a path inside


def _memory(size: int) -> dict[str, Any]:
    return {"emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}


def _secret(name: str) -> dict[str, Any]:
    return {"secret": {"secretName": name, "defaultMode": 0o440}}
