"""What every engine promises: make, start, stop, delete, observe and dial environments.

Policy and leases are the work of other rooms.

The promises are the contract suite in tests/contract; an engine is one that passes it.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.model import NOWHERE, EnvironmentRef, EnvironmentSpec, Gpu, GpuUuid, NodeName

Progress = Callable[[str], None]
Service = Literal["ssh", "notebook", "ports"]
"""What an environment serves (docs/reference/environment-contract.md)."""

IMAGE_LABEL_PREFIX = "org.devgw."
"""What every label of an image that devgw built begins with; containers carry other ones."""


def named(image: str) -> str:
    """Return an image's name for a line of progress: of a digest the beginning."""
    return image[:19] if image.startswith("sha256:") else image


def ignore_progress(_line: str) -> None:
    """Drop progress lines where nobody watches."""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine says of itself. `gpu_injection` is `cdi`, `runtime-hook` or `none`, with the reason in `notes`."""

    name: str
    version: str
    gpu_injection: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedEnvironment:
    """An environment as the engine sees it, read from its labels: the second observed beside the store.

    `partial` marks what an interrupted create or delete left: it cannot be started, `delete` clears it, and `create`
    may use the name. `detail` says in words what went wrong, such as `out of memory: …`; `caveats` what of its
    specification is not in force on this host.

    `is_unknown` says that its `node` does not answer: it may run or not, and `running` is False.
    """

    ref: EnvironmentRef
    running: bool
    image: str
    uid: int
    gpus: tuple[GpuUuid, ...]
    spec_digest: str
    exit_code: int | None = None
    detail: str = ""
    partial: bool = False
    caveats: tuple[str, ...] = ()
    node: NodeName = NOWHERE
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What an environment's processes have used and use: processor seconds since its start, memory without caches."""

    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Scheduling:
    """What an engine decides by itself; all else devgw decides (`gpus.deciders`).

    With `places_gpus` it finds the node and the GPUs for `EnvironmentSpec.gpu_request`, and observes which they are
    once it runs. With `has_queue` its `start` returns when there is room, in an order of its own. With `ends_leases`
    it ends environments by their time.
    """

    places_gpus: bool = False
    has_queue: bool = False
    ends_leases: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that an engine runs environments on.

    `gpus` is None where the engine leaves it to the gateway's own inventory: on this host. `conditions` are the
    engine's own words for what ails it, such as `DiskPressure`. `is_ready` is False for one that does not answer.
    """

    name: NodeName
    is_ready: bool = True
    takes_new: bool = True
    gpus: tuple[Gpu, ...] | None = None
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A local image: `reference` as asked for, `digest` as the engine names it, the labels of devgw's build."""

    reference: str
    digest: str
    labels: dict[str, str]


class Engine(Protocol):
    """Calls block.

    Each raises EngineError (`engine.unreachable`, `engine.failed`, `engine.no-space`) where nothing better is named.

    Of an environment whose node does not answer, `create`, `start`, `stop`, `delete`, `dial` and `logs` raise
    NodeError `node.unreachable` and change nothing. It is observed all the same, as unknown.
    """

    name: str
    scheduling: Scheduling

    def report(self) -> EngineReport:
        """Say whether the engine answers and what it can do."""

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        """Make the environment without starting it; on failure nothing is left.

        No service that an earlier environment of that name left is dialled afterwards.

        Raises:
            ConflictError: `environment.exists`, when the engine has one of that name.
            NotFoundError: `image.not-found`.
            EngineError: `mount.missing` for an absent source; `gpu.injection` when the GPU cannot be injected;
                `variable.reserved` for a variable by which devices or code could be chosen (`variables`).
            QueuedError: `gpu.none-free`, from an engine that places and has no room now (or from `start`).
            LeaseError: `gpu.too-many`, from one that never has as much.
        """

    def start(self, ref: EnvironmentRef) -> None:
        """Start it; starting a running one changes nothing.

        Raises:
            NotFoundError: `environment.not-found`.
            EngineError: `gpu.injection`, where the engine learns only now that it does not know a GPU.
        """

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        """SIGTERM, wait, then SIGKILL the whole tree; stopping a stopped or absent one changes nothing."""

    def delete(self, ref: EnvironmentRef) -> None:
        """Remove it, running or not, with its network; deleting an absent one changes nothing. Volumes stay."""

    def refresh(self, ref: EnvironmentRef) -> None:
        """Let an environment see what was changed in the directories of its mounts; an absent one changes nothing.

        Nothing is to be done where it sees the gateway's own files.
        """

    def remove_volumes(self, ref: EnvironmentRef) -> None:
        """Remove for good what the engine itself keeps of a user's files; `delete` has come before."""

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        """Return what the engine has under that name."""

    def observe_all(self) -> list[ObservedEnvironment]:
        """Return everything of this gateway's that the engine has."""

    def nodes(self) -> list[Node]:
        """Return every machine, those that do not answer too. One host is one node."""

    def unreachable(self) -> Mapping[EnvironmentRef, NodeName]:
        """Return the environments whose node does not answer, quickly: this is asked before each act."""

    def abandon(self, node: NodeName) -> None:
        """Take what runs on a node that does not answer for ended, because an administrator says that it is dead.

        Its environments are observed no more, and their names are free. If the node returns after all, the engine ends
        what it still runs before it can be observed again.

        Raises:
            NotFoundError: `node.not-found`.
            ConflictError: `node.alive`, when it answers.
        """

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        """Return a connected, non-blocking stream socket to one of an environment's services; the caller closes it.

        It is a plain socket whose two directions end apart. Behind it may be the service itself, or what carries its
        bytes from another machine. Answers within milliseconds where the environment lives on this host, and without
        asking a daemon.

        Raises:
            EngineError: `socket.absent` where there is no such environment or service (yet), `socket.refused` where
                it does not answer, `socket.forged` where something else stands in its place (invariant 5).
        """

    def status(self, ref: EnvironmentRef) -> bytes | None:
        """Return what the environment last wrote of itself (`status.json`), at most 4096 bytes; None where nothing is.

        Its user wrote it and may have written anything.
        """

    def load(self, ref: EnvironmentRef) -> Load | None:
        """Return what the kernel's account of a running environment says; None where it does not run, or nobody counts.

        It is the engine's word, which an environment's user cannot choose.
        """

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        """Return the last lines an environment's entrypoint wrote. Raises: NotFoundError `environment.not-found`."""

    def image(self, reference: str) -> Image:
        """Find a local image. Raises: NotFoundError `image.not-found`."""

    def images(self) -> list[Image]:
        """List local images that carry devgw's labels, one for each name; nameless remains of builds are left out."""
