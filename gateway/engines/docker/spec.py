"""An EnvironmentSpec in the words of the Docker Engine API (`POST /containers/create`). Pure: nothing is asked or made.

The hardening stands here as one readable body.
"""

from typing import Any

from gateway.engines.docker import labels, names
from gateway.engines.docker.ceilings import lowered
from gateway.engines.docker.facts import KEEP_THEM, MAPPED_AWAY, Facts
from gateway.engines.docker.injection import VISIBLE_DEVICES, device_requests, visible_devices
from gateway.engines.docker.keep_id import RUNTIME
from gateway.engines.variables import refuse_reserved
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentSpec, Limits, Mount

_MIB = 1024 * 1024
_ULIMITS = (  # name, soft, hard
    ("memlock", -1, -1),  # pinned memory for CUDA and RDMA
    ("stack", 64 * _MIB, 64 * _MIB),  # NVIDIA's convention for its containers
    ("nofile", 65_536, 1_048_576),  # many DataLoader workers; more by default slows programs that close them all
)
_RUN_TMPFS_BYTES = 64 * _MIB
_FORCE_RECURSIVE_API = (1, 44)  # BindOptions.ReadOnlyForceRecursive: submounts read-only too, or an error


def container_body(spec: EnvironmentSpec, gateway_id: str, facts: Facts) -> dict[str, Any]:
    """Return the request body that makes this environment.

    Raises:
        EngineError: `gpu.injection`, `variable.reserved`, `engine.unconfined`, `engine.maps-users`,
            `egress.unavailable`, `engine.failed` for more processors than there are.
    """
    refuse_reserved(spec.variables)
    _require_kept_user(spec, facts)
    if facts.maps_users and spec.egress != Egress.NONE:
        raise EngineError(
            "egress.unavailable",
            f"{facts.product} without root makes networks in a namespace of its own, where nothing here can close them",
            "create it with egress none, and give its role 'egress_hosts' where it needs hosts outside",
        )
    _require_processors(spec, facts)
    variables = {**spec.variables, VISIBLE_DEVICES: visible_devices(spec.gpus, facts.injection)}
    return {
        "Image": spec.image,
        "Hostname": spec.ref.hostname,
        "User": f"{spec.uid}:{spec.gid}",
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Labels": labels.labels_of(spec, gateway_id),
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # nothing is exec'ed into an environment
        "Tty": False,
        "OpenStdin": False,
        "HostConfig": {
            **_confinement(spec, facts),
            **_kept_user(facts),
            **_resources(spec, facts),
            "NetworkMode": network_mode(spec, gateway_id),
            "DeviceRequests": device_requests(spec.gpus, facts.injection),
            "Mounts": [_bind(mount, facts.api_version) for mount in spec.mounts],
            "Tmpfs": _tmpfs(spec, facts),
            **({"GroupAdd": [str(gid) for gid in spec.groups]} if spec.groups else {}),
            "RestartPolicy": {"Name": "no"},  # the gateway starts environments, after it has seen the GPUs
            "LogConfig": _log(facts),
        },
    }


def network_mode(spec: EnvironmentSpec, gateway_id: str) -> str:
    """Return `none`, or the name of the environment's own bridge network."""
    return "none" if spec.egress == Egress.NONE else names.container_name(gateway_id, spec.ref)


def _confinement(spec: EnvironmentSpec, facts: Facts) -> dict[str, Any]:
    """Invariants 1 and 3. The engine adds its default AppArmor profile where the host has AppArmor."""
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "SecurityOpt": ["no-new-privileges:true", *_seccomp(facts)],
        "ReadonlyRootfs": spec.read_only_root,
        "Init": True,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PublishAllPorts": False,
        "PortBindings": {},
    }


def _seccomp(facts: Facts) -> list[str]:
    """The daemon's default profile applies unasked, a site's own one too; only `unconfined` is overruled."""
    if not facts.seccomp:
        raise EngineError(
            "engine.unconfined",
            "the engine has no seccomp, so it gets no environments",
            "use a kernel and engine with it",
        )
    return ["seccomp=builtin"] if facts.seccomp == "unconfined" else []


def _resources(spec: EnvironmentSpec, facts: Facts) -> dict[str, Any]:
    return {
        **_limits(spec.limits, facts),
        "ShmSize": spec.limits.shm_bytes,
        "Ulimits": [
            {"Name": name, "Soft": lowered(soft, name, facts.ceilings), "Hard": lowered(hard, name, facts.ceilings)}
            for name, soft, hard in _ULIMITS
        ],
    }


def _limits(limits: Limits, facts: Facts) -> dict[str, int]:
    """An engine that holds none is asked for none: Docker would show them as if it did."""
    if facts.drops_limits:
        return dict.fromkeys(("Memory", "MemorySwap", "NanoCpus", "PidsLimit"), 0)
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # equal to Memory: no swap
        "NanoCpus": round(limits.cpus * 1_000_000_000),
        "PidsLimit": limits.pids,
    }


def _kept_user(facts: Facts) -> dict[str, str]:
    """An engine without root is told to keep its own user, each in its words."""
    if not facts.maps_users:
        return {}
    return {"UsernsMode": "keep-id"} if facts.is_podman else {"Runtime": RUNTIME}


def _require_kept_user(spec: EnvironmentSpec, facts: Facts) -> None:
    """An engine that maps users keeps one of the host's at most: inside, all others own nothing that is mounted."""
    if facts.remaps_users:
        raise EngineError(
            "engine.maps-users",
            "user namespace remapping is on, so what is mounted would belong to somebody else inside",
            "remove 'userns-remap' from the engine's daemon.json",
        )
    if facts.maps_users and not facts.keeps_user:
        raise EngineError(
            "engine.maps-users",
            MAPPED_AWAY,
            f"{KEEP_THEM}, or run it with root",
        )
    if facts.maps_users and facts.owner not in {None, spec.uid}:
        raise EngineError(
            "engine.maps-users",
            f"{facts.product} runs without root, as uid {facts.owner}, and keeps no other; "
            f"this environment's is {spec.uid}",
            f"run the gateway as that user, or {facts.product} with root",
        )


def _require_processors(spec: EnvironmentSpec, facts: Facts) -> None:
    """Docker refuses more than its host has; Podman, and Docker that limits nothing, would take any number."""
    if (facts.is_podman or facts.drops_limits) and 0 < facts.processors < spec.limits.cpus:
        raise EngineError(
            "engine.failed",
            f"{spec.limits.cpus:g} cpus are more than the engine's {facts.processors}",
            f"ask for {facts.processors} or fewer",
        )


def _log(facts: Facts) -> dict[str, Any]:
    """Return a log of bounded size; Podman knows no `local`, and keeps one file."""
    if facts.is_podman:
        return {"Type": "k8s-file", "Config": {"max-size": "20m"}}
    return {"Type": "local", "Config": {"max-size": "20m", "max-file": "3"}}


def _tmpfs(spec: EnvironmentSpec, facts: Facts) -> dict[str, str]:
    """Return mount options. torch.compile and pip build in /tmp and load what they built, so it allows exec."""
    owner = "U" if facts.is_podman else f"uid={spec.uid},gid={spec.gid}"  # Podman: whoever the container runs as
    return {
        "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={spec.limits.memory_bytes // 2}",  # noqa: S108 a path inside the environment
        "/run": f"rw,noexec,nosuid,nodev,mode=0755,{owner},size={_RUN_TMPFS_BYTES}",
    }


def _bind(mount: Mount, api_version: tuple[int, int]) -> dict[str, Any]:
    """Return a Mount: refused when its source is absent, where the `-v` form would make a directory owned by root."""
    options: dict[str, Any] = {"Propagation": "rprivate"}
    if mount.read_only and api_version >= _FORCE_RECURSIVE_API:
        options["ReadOnlyForceRecursive"] = True
    return {
        "Type": "bind",
        "Source": str(mount.source),
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "BindOptions": options,
    }
