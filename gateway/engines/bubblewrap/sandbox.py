"""What one sandbox is made of, worked out to the last path: what the engine hands to the supervisor."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.engines.bubblewrap.devices import Devices
from gateway.engines.bubblewrap.software import PreparedRoot
from gateway.model import EnvironmentSpec

_MIB = 2**20
_RUN_BYTES = 64 * _MIB
_HIDDEN_BYTES = 4096
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host inside. `device` lets device nodes work."""

    source: str
    target: str
    access: Literal["read", "write", "device"] = "read"


@dataclass(frozen=True, slots=True)
class Temporary:
    """A file system in memory, with its size; always nosuid and nodev."""

    target: str
    size_bytes: int
    mode: int = 0o755
    may_execute: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link in the root."""

    path: str
    leads_to: str


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Everything bwrap is told."""

    hostname: str
    uid: int
    gid: int
    command: tuple[str, ...]
    variables: dict[str, str]
    binds: tuple[Bind, ...]
    temporaries: tuple[Temporary, ...]
    links: tuple[Link, ...] = ()
    read_only_root: bool = True

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Sandbox":
        """Read what `asdict` made of one, after it was JSON."""
        return cls(
            **{
                **found,
                "command": tuple(found["command"]),
                "binds": tuple(Bind(**one) for one in found["binds"]),
                "temporaries": tuple(Temporary(**one) for one in found["temporaries"]),
                "links": tuple(Link(**one) for one in found["links"]),
            }
        )


def sandbox_of(
    spec: EnvironmentSpec, root: PreparedRoot, devices: Devices, tree: Path, resolver: Path | None = None
) -> Sandbox:
    """Work a specification out.

    `tree` holds the root's small files, the image's own or this environment's copy; `resolver` is its resolv.conf.
    """
    mounts = [Bind(str(resolver), "/etc/resolv.conf")] if resolver else []
    mounts += [Bind(str(mount.source), mount.target, "read" if mount.read_only else "write") for mount in spec.mounts]
    from_host = [Bind(str(source), target) for source, target in root.binds]
    nodes = [Bind(source, target, "device") for source, target in devices.nodes]
    files = [Bind(source, target) for source, target in devices.files]
    temporaries = (*_temporaries(spec), *(Temporary(path, _HIDDEN_BYTES) for path in root.hidden))
    covered = [*(bind.target for bind in (*mounts, *from_host, *files)), *(one.target for one in temporaries)]
    inside = list(_tree(tree, "", sorted({*covered, "/proc", "/dev"}), writable=not spec.read_only_root))
    return Sandbox(
        hostname=spec.ref.hostname,
        uid=spec.uid,
        gid=spec.gid,
        command=root.command,
        variables={**root.variables, **spec.variables, **devices.variables, **visible_devices(spec)},
        binds=(*(one for one in inside if isinstance(one, Bind)), *from_host, *files, *nodes, *mounts),
        temporaries=temporaries,
        links=tuple(one for one in inside if isinstance(one, Link)),
        read_only_root=spec.read_only_root,
    )


def visible_devices(spec: EnvironmentSpec) -> dict[str, str]:
    """Name the leased GPUs to CUDA and to programs that look for NVIDIA's own variable; no other is there to see."""
    if not spec.gpus:
        return {VISIBLE_DEVICES: "void"}
    return {VISIBLE_DEVICES: ",".join(spec.gpus), "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus)}


def _temporaries(spec: EnvironmentSpec) -> Iterator[Temporary]:
    """Return what may be written without a volume. torch.compile and pip build in /tmp and load what they built."""
    yield Temporary("/tmp", spec.limits.memory_bytes // 2, 0o1777, may_execute=True)  # noqa: S108 a path inside
    yield Temporary("/run", _RUN_BYTES)
    yield Temporary("/dev/shm", spec.limits.shm_bytes, 0o1777)  # noqa: S108 a path inside


def _tree(place: Path, prefix: str, covered: Iterable[str], *, writable: bool) -> Iterator[Bind | Link]:
    """Lay a directory into the root, entry by entry where something is mounted below it, else as a whole."""
    for entry in sorted(place.iterdir()):
        target = f"{prefix}/{entry.name}"
        below = [path for path in covered if path.startswith(f"{target}/")]
        if target in covered:
            continue
        if entry.is_symlink():
            yield Link(target, str(entry.readlink()))
        elif entry.is_dir() and below:
            yield from _tree(entry, target, below, writable=writable)
        else:
            yield Bind(str(entry), target, "write" if writable else "read")
