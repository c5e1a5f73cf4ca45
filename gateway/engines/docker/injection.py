"""How a GPU gets into a container here: CDI, the runtime hook, or not at all. Chosen by us, never silently.

A container whose GPU came through the hook loses it when anything rewrites its device cgroup
(`systemctl daemon-reload`, `docker update`), so CDI comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import EngineError
from gateway.gpu_names import CDI_KINDS, cdi_name, is_amd
from gateway.model import GpuUuid

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"

InjectionKind = Literal["cdi", "runtime-hook", "none"]


@dataclass(frozen=True, slots=True)
class Injection:
    """What this engine can do. `devices` are the CDI names it knows, None where it does not say (API below 1.50)."""

    kind: InjectionKind
    reason: str
    devices: frozenset[str] | None = None


def injection_of(info: Mapping[str, Any]) -> Injection:
    """Choose from the engine's own `/info`."""
    if is_podman(info):  # it has CDI always, and says neither where it looks nor what it found
        return Injection("cdi", "Podman reads CDI specs")
    has_runtime = "nvidia" in (info.get("Runtimes") or {})
    spec_dirs = info.get("CDISpecDirs") or []  # empty where the feature is off; absent below API 1.44
    discovered = info.get("DiscoveredDevices")
    devices = None if discovered is None else frozenset(_cdi_names(discovered))
    knows_gpus = devices is None or any(name.partition("=")[0] in CDI_KINDS for name in devices)
    if spec_dirs and (knows_gpus or not has_runtime):
        return Injection("cdi", f"CDI specs are read from {', '.join(spec_dirs)}", devices)
    if has_runtime:
        why = "the CDI specs name no GPU" if spec_dirs else "the engine has no CDI"
        return Injection("runtime-hook", f"{why}: GPUs come through the nvidia runtime hook, which can lose them")
    return Injection("none", "the engine has neither CDI nor an nvidia runtime")


def is_podman(info: Mapping[str, Any]) -> bool:
    """Say whether the engine is Podman's service of Docker's API: only that one names its Buildah."""
    return bool(info.get("BuildahVersion"))


def device_requests(gpus: Sequence[GpuUuid], injection: Injection) -> list[dict[str, Any]]:
    """Return the one DeviceRequest for these UUIDs, or none for an environment without GPUs.

    Raises:
        EngineError: `gpu.injection`, where the engine cannot inject at all or does not know a UUID.
    """
    if not gpus:
        return []
    if injection.kind == "none":
        raise EngineError("gpu.injection", injection.reason, "'devgw doctor' says what is missing")
    if injection.kind == "runtime-hook" and any(is_amd(gpu) for gpu in gpus):
        raise EngineError("gpu.injection", "an AMD GPU needs CDI, and the engine has none", "'devgw doctor' says more")
    if injection.kind == "runtime-hook":
        return [_request("nvidia", list(gpus), [["gpu", "compute", "utility"]])]
    names = [cdi_name(gpu) for gpu in gpus]
    unknown = [] if injection.devices is None else [name for name in names if name not in injection.devices]
    if unknown:
        raise unknown_device(", ".join(unknown))
    # A CDI request must have Count 0 and no options (moby daemon/cdi.go)
    return [_request("cdi", names, [])]


def visible_devices(gpus: Sequence[GpuUuid], injection: Injection) -> str:
    """Return the value of NVIDIA_VISIBLE_DEVICES, which images set to `all` and a default nvidia runtime obeys."""
    return ",".join(gpus) if gpus and injection.kind == "runtime-hook" else "void"


def unknown_device(names: str) -> EngineError:
    """Say that a CDI spec is stale or absent."""
    return EngineError(
        "gpu.injection",
        f"the engine's CDI specs do not know {names}",
        "refresh them after a driver or MIG change: 'systemctl restart nvidia-cdi-refresh'",
    )


def _request(driver: str, ids: list[str], capabilities: list[list[str]]) -> dict[str, Any]:
    return {"Driver": driver, "Count": 0, "DeviceIDs": ids, "Capabilities": capabilities, "Options": {}}


def _cdi_names(discovered: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(device.get("ID", "")) for device in discovered if device.get("Source") == "cdi"]
