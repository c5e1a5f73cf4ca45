"""Facts of NVIDIA's parts: cards, kernel module, libraries, toolkit, CDI specs, processes on the GPUs."""

import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gateway.doctor.facts import CdiFacts, CdiSpec, DriverFacts, GpuProcess, ToolkitFacts
from gateway.doctor.finding import Unasked
from gateway.gpus.cdi import device_names, spec_files
from gateway.gpus.sensors import Sensors
from gateway.model import EnvironmentRef

_NVIDIA_VENDOR, _DISPLAY_CLASS = "0x10de", "0x03"
_MODULE = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)")
_LIBRARY = re.compile(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3,}\.\d+(?:\.\d+)?)")
_LIBRARY_PLACES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")
_CONFIG = "etc/nvidia-container-runtime/config.toml"
_OPTION = "accept-nvidia-visible-devices-envvar-when-unprivileged"
_TOOL_SECONDS = 10


def driver_facts(sensors: Sensors, root: Path = Path("/")) -> DriverFacts:
    """Count the cards on the PCI bus and read the versions of module and libraries."""
    return DriverFacts(
        pci_gpus=sum(_is_gpu(device) for device in (root / "sys/bus/pci/devices").glob("*")),
        module=_module(root / "proc/driver/nvidia/version"),
        libraries=_libraries(root),
        sensors=sensors,
    )


def toolkit_facts(tool: str = "nvidia-ctk", root: Path = Path("/")) -> ToolkitFacts:
    """Ask the toolkit its version and read the option that NVIDIA's default leaves on."""
    try:
        said = subprocess.run(
            [tool, "--version"], capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    match = re.search(r"version\s+(\S+)", said)
    return ToolkitFacts(match[1] if match else "", _accepts_variable(root / _CONFIG))


def cdi_facts(directories: Iterable[Path]) -> CdiFacts:
    """Read every spec of nvidia.com/gpu in these directories."""
    places, specs, unreadable = tuple(directories), [], []
    for file in spec_files(places):
        try:
            names = device_names(file)
            driver = _LIBRARY.search(file.read_text())
        except (OSError, ValueError, KeyError, TypeError):
            unreadable.append(file)
            continue
        if names:
            specs.append(CdiSpec(file, frozenset(names), driver[1] if driver else ""))
    return CdiFacts(places, tuple(specs), tuple(unreadable))


def gpu_processes(
    sensors: Sensors, marks: Mapping[str, EnvironmentRef], root: Path = Path("/")
) -> tuple[GpuProcess, ...] | Unasked:
    """Say for each process on a GPU which environment it is in, by its control group.

    With MIG the driver lists a process on its slice and on the whole GPU; only the slice is leased.
    """
    found: list[GpuProcess] = []
    parents = {device.parent for device in sensors.devices if device.parent is not None}
    for device in sensors.devices:
        if device.uuid in parents:
            continue
        if device.processes is None:
            return Unasked(f"the driver does not list the processes of {device.uuid}")
        for process in device.processes:
            place = root / "proc" / str(process.pid)
            try:
                group, name = (place / "cgroup").read_text(), (place / "comm").read_text().strip()
            except FileNotFoundError:  # it has ended
                continue
            except OSError as exc:
                return Unasked(f"{place}: {exc.strerror}")
            refs = (marks[mark] for mark in _marks_in(group) if mark in marks)
            found.append(GpuProcess(process.pid, device.uuid, name, next(refs, None)))
    return tuple(found)


def _marks_in(group: str) -> Iterator[str]:
    """Yield the parts of a control group's path as engines name them: `docker-ID.scope` is ID, as is `/docker/ID`."""
    for part in re.split(r"[/:\s]", group):
        yield part.removeprefix("docker-").removesuffix(".scope")


def _is_gpu(device: Path) -> bool:
    try:
        vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
    except OSError:
        return False
    return vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS)


def _module(file: Path) -> str:
    try:
        match = _MODULE.search(file.read_text())
    except OSError:
        return ""
    return match[1] if match else ""


def _libraries(root: Path) -> tuple[str, ...]:
    names = (file.name for place in _LIBRARY_PLACES for file in (root / place).glob("lib*.so.*"))
    return tuple(sorted({match[1] for name in names if (match := _LIBRARY.fullmatch(name))}))


def _accepts_variable(file: Path) -> bool:
    """Read the option; NVIDIA's default, also for a file that is absent, is true."""
    try:
        return bool(tomllib.loads(file.read_text()).get(_OPTION, True))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return True
