"""A container's request body in the words of a Compose file, so that `docker compose up` makes it hardened alike. Pure.

Every part of the body has its word here, or a reason why it needs none; one that is new is an error, not left out.
"""

from collections.abc import Mapping
from typing import Any

from gateway.model import EnvironmentSpec

EXPORTED = "devgw.exported"
_SILENT = frozenset({"Labels", "Tty", "OpenStdin", "HostConfig", "Healthcheck"})
"""Labels would make a gateway take it for its own; the rest is Compose's default or comes below."""
_SILENT_HOST = frozenset(
    {"Privileged", "CapAdd", "PublishAllPorts", "PortBindings", "CgroupnsMode", "Ulimits", "Mounts", "DeviceRequests"}
)
"""What Compose does not do unless it is told to; a private cgroup namespace is the engine's own default."""
_WORDS = {
    "Image": "image",
    "Hostname": "hostname",
    "User": "user",
    "Env": "environment",
    "StopSignal": "stop_signal",
}
_HOST_WORDS = {
    "CapDrop": "cap_drop",
    "SecurityOpt": "security_opt",
    "ReadonlyRootfs": "read_only",
    "Init": "init",
    "IpcMode": "ipc",
    "Memory": "mem_limit",
    "MemorySwap": "memswap_limit",
    "PidsLimit": "pids_limit",
    "ShmSize": "shm_size",
    "NetworkMode": "network_mode",
    "UsernsMode": "userns_mode",
    "Runtime": "runtime",
}


def compose_of(spec: EnvironmentSpec, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Compose document of one service. Egress is none: what confines more of it is the gateway's.

    Raises:
        KeyError: the body has a part that has no word here.
    """
    host = dict(body["HostConfig"]) | {"NetworkMode": "none"}
    service: dict[str, Any] = {}
    for key, value in body.items():
        if key not in _SILENT:
            service[_WORDS[key]] = value
    for key, value in host.items():
        if key in _HOST_WORDS:
            service[_HOST_WORDS[key]] = value
        elif key not in _SILENT_HOST:
            service |= _PARTS[key](value)
    service["healthcheck"] = {"disable": True}
    service["labels"] = {EXPORTED: str(spec.ref)}
    service["ulimits"] = {one["Name"]: {"soft": one["Soft"], "hard": one["Hard"]} for one in host["Ulimits"]}
    service["volumes"] = [_volume(mount) for mount in host["Mounts"]]
    if host["DeviceRequests"]:
        service["deploy"] = {"resources": {"reservations": {"devices": list(map(_device, host["DeviceRequests"]))}}}
    found: dict[str, Any] = _escaped({"services": {str(spec.ref).replace("+", "-"): service}})
    return found


def _volume(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": mount["Source"],
        "target": mount["Target"],
        "read_only": mount["ReadOnly"],
        "bind": {"propagation": mount["BindOptions"]["Propagation"]},
    }


def _device(request: Mapping[str, Any]) -> dict[str, Any]:
    capabilities = [one for together in request["Capabilities"] for one in together]
    return {"driver": request["Driver"], "device_ids": request["DeviceIDs"], "capabilities": capabilities or ["gpu"]}


_PARTS: dict[str, Any] = {
    "NanoCpus": lambda value: {"cpus": value / 1_000_000_000},
    "Tmpfs": lambda value: {"tmpfs": [f"{target}:{options}" for target, options in value.items()]},
    "RestartPolicy": lambda value: {"restart": value["Name"]},
    "LogConfig": lambda value: {"logging": {"driver": value["Type"], "options": value["Config"]}},
}


def _escaped(value: Any) -> Any:
    """Double the dollar signs, which Compose would take for variables."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value
