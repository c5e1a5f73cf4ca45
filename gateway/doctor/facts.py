"""What is known of a host when it is judged. Each fact that may be hidden from us can be `Unasked` instead."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.doctor.finding import Unasked
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.engines.interface import Node
from gateway.gpus.sensors import Sensors
from gateway.model import EnvironmentRef, GpuUuid, Limits


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The NVIDIA driver. `module` is the loaded kernel module's version, empty when none is loaded."""

    pci_gpus: int
    module: str
    libraries: tuple[str, ...]
    sensors: Sensors


@dataclass(frozen=True, slots=True)
class ToolkitFacts:
    """nvidia-container-toolkit: its version, empty when absent, and one setting of its config.toml."""

    version: str
    accepts_variable: bool


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """One CDI spec of nvidia.com/gpu: the device names, and the driver whose libraries it mounts."""

    path: Path
    devices: frozenset[str]
    driver: str = ""


@dataclass(frozen=True, slots=True)
class CdiFacts:
    """The CDI specs in the engine's directories. `unreadable` are files that are no spec."""

    directories: tuple[Path, ...]
    specs: tuple[CdiSpec, ...]
    unreadable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Space:
    """A file system: who needs it, where, and how much is left."""

    of: str
    path: Path
    free_bytes: int
    total_bytes: int
    free_inodes_percent: float = 100.0


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The machine itself."""

    spaces: tuple[Space, ...]
    memory_bytes: int | Unasked
    inotify_watches: int | Unasked
    inotify_instances: int | Unasked
    pid_max: int | Unasked
    clock_is_synchronised: bool | Unasked


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Owner and mode of a file or directory of the gateway's."""

    path: Path
    mode: int
    uid: int


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disks that environments have of their own. `why_not` says why this host keeps no sizes."""

    why_not: str = ""
    kept: int = 0
    unkept: tuple[str, ...] = ()
    """Environments that have a size which nothing keeps, each with the reason."""
    nearly_full: tuple[str, ...] = ()
    unsized: int = 0
    way: str = ""
    """What keeps the size of a disk that is made now."""
    leavable: str = ""
    """Why users could leave the projects that bound them; empty where there are none, or they could not."""


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """The unit by which systemd starts the gateway. `obstacle` says why it cannot, empty where it can."""

    unit: Path
    account: str
    program: Path
    obstacle: str
    is_absent: bool = False
    """The program is not there at all."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """The gateway's own state. Errors are messages, empty where there is none."""

    is_initialised: bool
    uid: int
    config_file: Path
    private: tuple[FileFacts, ...]
    keys: tuple[FileFacts, ...]
    policy_error: str
    policy_file: Path
    database: str | Unasked
    journal: str | Unasked
    port: int
    port_holder: str
    """Empty when the port is free, `devgw` when a gateway answers there, else what does."""
    host_key_fingerprint: str = ""
    opened_macs: tuple[str, ...] = ()
    """Of server.macs, those that are checked after decryption."""
    troubles: tuple[str, ...] | Unasked = ()
    """What the gateway last failed at in its care for environments, one each."""
    disks: DiskFacts | Unasked = field(default_factory=DiskFacts)
    duties: str = ""
    """Which loop of the serving gateway died or stands still."""
    service: ServiceFacts | Unasked | None = None
    """None where no unit of systemd's is installed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What environments shall be: the settings' defaults, or one environment's own."""

    image: str
    limits: Limits
    wants_gpu: bool = True
    read_only_root: bool = True


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that uses a GPU, and the environment it belongs to; None when to none."""

    pid: int
    gpu: GpuUuid
    name: str
    environment: EnvironmentRef | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is judged. `leases` says who holds which GPU."""

    driver: DriverFacts
    toolkit: ToolkitFacts
    cdi: CdiFacts
    engine: EngineFacts | Unasked
    image: ImageFacts | Unasked
    host: HostFacts
    site: SiteFacts
    wish: Wish
    processes: tuple[GpuProcess, ...] | Unasked = ()
    leases: Mapping[GpuUuid, EnvironmentRef] | Unasked = field(default_factory=dict)
    gpus_are_wanted: bool = True
    nodes: tuple[Node, ...] = ()
    """What the engine says of its machines; empty where it cannot be asked, which `engine` says already."""
