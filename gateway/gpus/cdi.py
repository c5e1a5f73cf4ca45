"""GPUs as CDI specs name them, for hosts where the driver's library cannot be asked. A spec has no memory sizes.

Format: github.com/cncf-tags/container-device-interface, SPEC.md; `nvidia-ctk cdi generate` writes it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gateway.gpus.reading import Reading
from gateway.model import Gpu, GpuUuid

_KIND = "nvidia.com/gpu"
_UUID = re.compile(r"(?:GPU|MIG)-[0-9a-fA-F-]+")


class CdiInventory:
    """Reads every spec in the engine's CDI directories anew each time, since a driver update rewrites them."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self._directories = directories

    def read(self) -> Reading:
        notes: list[str] = []
        names: list[str] = []
        for file in spec_files(self._directories):
            try:
                names += device_names(file)
            except (OSError, ValueError, KeyError, TypeError) as exc:
                notes.append(f"{file} cannot be read as a CDI spec: {type(exc).__name__}")
        uuids = sorted({name for name in names if _UUID.fullmatch(name)})
        if names and not uuids:
            notes.append("the CDI specs name GPUs by index only: generate them with --device-name-strategy=uuid")
        if not names:
            notes.append(f"no CDI spec of {_KIND} in {', '.join(map(str, self._directories)) or 'no directory'}")
        return Reading("cdi", tuple(_gpu(uuid) for uuid in uuids), tuple(notes))


def spec_files(directories: Iterable[Path]) -> Iterator[Path]:
    """Yield every file that an engine would read as a CDI spec."""
    for directory in directories:
        for file in sorted(directory.glob("*")):
            if file.suffix in {".json", ".yaml", ".yml"}:
                yield file


def device_names(file: Path) -> list[str]:
    """Return the names of the GPUs in a spec; none when it is of other devices.

    Raises:
        OSError, ValueError, KeyError, TypeError: when it cannot be read as a spec.
    """
    spec = _parsed(file)
    if spec["kind"] != _KIND:
        return []
    return [str(device["name"]) for device in spec["devices"]]


def _parsed(file: Path) -> dict[str, Any]:
    text = file.read_text()
    if file.suffix == ".json":
        spec = json.loads(text)
    else:
        import yaml

        try:
            spec = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 both are safe loaders
        except yaml.YAMLError as exc:
            raise ValueError(str(exc)) from exc
    return dict(spec)


def _gpu(uuid: str) -> Gpu:
    return Gpu(GpuUuid(uuid), "NVIDIA MIG slice" if uuid.startswith("MIG-") else "NVIDIA GPU")
