"""The device nodes of leased GPUs, by UUID: from the host's CDI specs, else from the driver's own files in /proc.

The driver's libraries need no copy: they lie in the host's /usr, which every sandbox sees read-only.
CDI: github.com/cncf-tags/container-device-interface, SPEC.md. Hooks of a spec are not run: the host's own ld.so.cache,
which is seen inside too, already knows the driver's libraries.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import EngineError
from gateway.gpu_names import CDI_KINDS
from gateway.model import GpuUuid

_DRIVER = Path("/proc/driver/nvidia/gpus")
_SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
_UUID = re.compile(r"^GPU UUID:\s*(\S+)", re.MULTILINE)
_MINOR = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Devices:
    """What GPUs add to a sandbox: (source, target) of device nodes and files, and variables."""

    nodes: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


class HostDevices:
    """The GPUs that this host can give to a sandbox; read anew each time, since a driver update changes them."""

    def __init__(self, cdi_directories: tuple[Path, ...], driver: Path = _DRIVER) -> None:
        self._cdi_directories = cdi_directories
        self._driver = driver

    def kind(self) -> tuple[str, str]:
        """Say how GPUs get in, `cdi` or `none`, and why."""
        if any(True for _ in self._cdi_devices()):
            return "cdi", "GPUs by the device nodes of the host's CDI specs"
        if self._driver.is_dir():
            return "cdi", f"GPUs by the device nodes that {self._driver} names; there is no CDI spec"
        return "none", "no CDI spec and no NVIDIA driver: there is no GPU to give"

    def of(self, gpus: tuple[GpuUuid, ...]) -> Devices:
        """Return what these GPUs need and nothing of any other. Raises: EngineError `gpu.injection`."""
        found = [self._cdi_edits(gpu) or self._driver_edits(gpu) for gpu in gpus]
        unknown = [gpu for gpu, edits in zip(gpus, found, strict=True) if edits is None]
        if unknown:
            raise EngineError(
                "gpu.injection", f"this host has no GPU {', '.join(unknown)}", "'devgw gpus' lists what it has"
            )
        edits = [one for one in found if one is not None]
        return Devices(
            tuple(dict.fromkeys(node for one in edits for node in one.nodes)),
            tuple(dict.fromkeys(file for one in edits for file in one.files)),
            {name: value for one in edits for name, value in one.variables.items()},
        )

    def _cdi_edits(self, gpu: GpuUuid) -> Devices | None:
        for name, edits in self._cdi_devices():
            if name == gpu:
                return _devices_in(edits)
        return None

    def _cdi_devices(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield each device's name with its edits and those of its whole spec."""
        for directory in self._cdi_directories:
            for file in sorted(directory.glob("*")):
                spec = _parsed(file)
                if spec.get("kind") in CDI_KINDS:
                    for device in spec.get("devices", []):
                        yield str(device["name"]), [spec.get("containerEdits") or {}, device["containerEdits"]]

    def _driver_edits(self, gpu: GpuUuid) -> Devices | None:
        for file in sorted(self._driver.glob("*/information")):
            text = file.read_text()
            uuid, minor = _UUID.search(text), _MINOR.search(text)
            if uuid and minor and uuid[1] == gpu:
                nodes = (f"/dev/nvidia{minor[1]}", *(node for node in _SHARED_NODES if Path(node).exists()))
                return Devices(tuple((node, node) for node in nodes))
        return None


def _devices_in(edits: list[dict[str, Any]]) -> Devices:
    nodes = [
        (node.get("hostPath") or node["path"], node["path"]) for edit in edits for node in _list(edit, "deviceNodes")
    ]
    mounts = [(mount["hostPath"], mount["containerPath"]) for edit in edits for mount in _list(edit, "mounts")]
    variables = dict(entry.split("=", 1) for edit in edits for entry in _list(edit, "env"))
    variables.pop("NVIDIA_VISIBLE_DEVICES", None)
    return Devices(tuple(nodes), tuple(pair for pair in mounts if not _is_seen_anyway(*pair)), variables)


def _is_seen_anyway(source: str, target: str) -> bool:
    return source == target and target.startswith("/usr/")


def _list(edit: dict[str, Any], key: str) -> list[Any]:
    return list(edit.get(key) or [])


def _parsed(file: Path) -> dict[str, Any]:
    """Read a CDI spec; anything else in those directories is not one."""
    import yaml

    try:
        if file.suffix == ".json":
            return dict(json.loads(file.read_text()))
        if file.suffix in {".yaml", ".yml"}:
            return dict(yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506 both are safe loaders
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}
    return {}
