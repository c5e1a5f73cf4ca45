"""What the contract suite must know of an engine in order to test it: an image, a spec, a way inside, a crash."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.engines.interface import Engine, Service
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, Limits, Mount, NodeName
from tests.contract.inside import Spool
from tests.support.host_resources import next_uid

MIB = 2**20
_ROOTLESS = os.environ.get("DEVGW_TEST_ROOTLESS_UID")  # an engine without root makes environments of one user
UID = int(_ROOTLESS) if _ROOTLESS else next_uid() if os.geteuid() == 0 else os.getuid()
GID = UID if os.geteuid() == 0 else os.getgid()


@dataclass(frozen=True)
class Machines:
    """What a test may do to the nodes of an engine of several machines."""

    cut: Callable[[NodeName], None]
    heal: Callable[[NodeName], None]


@dataclass(frozen=True)
class EngineUnderTest:
    """One engine and the answers to what the interface leaves open.

    `image` prints `probe is ready` when it starts and carries the label `org.devgw.contract`. `interrupt_create` leaves
    what a create leaves that was killed half-way; `end` makes the entrypoint exit by itself. `other` is the same engine
    as another gateway sees it. `gpu` and `other_gpu` are UUIDs the engine can inject, None where it cannot inject any;
    `egress` is the most that this host lets the engine give. `machines` is None for an engine of one host. Without
    `has_local_images` the engine's nodes fetch images when an environment starts, and it cannot say what they hold.
    """

    name: str
    engine: Engine
    other: Engine
    image: str
    directory: Path
    interrupt_create: Callable[[EnvironmentSpec], None]
    end: Callable[[EnvironmentRef, int], None]
    gpu: GpuUuid | None = None
    other_gpu: GpuUuid | None = None
    egress: Egress = Egress.INTERNET
    machines: Machines | None = None
    has_local_images: bool = True
    keeps_gpus_while_stopped: bool = True

    @property
    def unlimited(self) -> bool:
        """Whether the engine says that this host lets it limit nothing; one that does not say so must limit."""
        return any("NOT enforced" in note for note in self.engine.report().notes)

    @property
    def has_own_ulimits(self) -> bool:
        """Whether the engine says that it drops ulimits; one that does not say so must set them."""
        return any("drops ulimits" in note for note in self.engine.report().notes)

    @property
    def keeps_one_user(self) -> bool:
        """Whether the engine says that environments are its own user's alone, or is the gateway's own without root."""
        if self.name == "bubblewrap":
            return os.geteuid() != 0
        return any("belong to its own user" in note for note in self.engine.report().notes)

    @property
    def counts_load(self) -> bool:
        """Whether the engine knows what an environment uses: where it limits; a cluster has an add-on for it."""
        return not self.unlimited and self.name != "kubernetes"

    def spec(self, handle: str = "alice", **changes: Any) -> EnvironmentSpec:
        """Return a spec that works, changed where a test says so."""
        ref = EnvironmentRef.parse(handle)
        limits = Limits(memory_bytes=128 * MIB, cpus=1.0, pids=64, shm_bytes=32 * MIB)
        plain = EnvironmentSpec(
            ref, UID, GID, self.image, limits, mounts=(Mount(self.run_directory(ref), "/run/devgw"),)
        )
        return replace(plain, **changes)

    def run_directory(self, ref: EnvironmentRef) -> Path:
        """Return the directory behind /run/devgw, owned by the environment's user."""
        return self.owned_directory(f"run.{ref.user}.{ref.name}")

    def owned_directory(self, name: str) -> Path:
        """Return a directory that the environment's user owns."""
        path = self.directory / name
        if not path.exists():
            path.mkdir()
            own(path)
        return path

    @contextmanager
    def serving(self, ref: EnvironmentRef, service: Service, greeting: bytes) -> Iterator[None]:
        """Have a service of an environment greet, then echo until the other side ends."""
        place = self.run_directory(ref) / f"{service}.sock"
        with _listening(place) as listener:
            own(place)
            threading.Thread(target=_greet_and_echo, args=(listener, greeting), daemon=True).start()
            yield

    def leave(self, ref: EnvironmentRef, service: Service) -> None:
        """Put a tree of directories in the place of a service, as an environment's user may."""
        (self.run_directory(ref) / f"{service}.sock" / "deep" / "tree").mkdir(parents=True)

    def report(self, ref: EnvironmentRef, content: bytes) -> None:
        """Write the environment's report of itself, as its user may."""
        report = self.run_directory(ref) / "status.json"
        report.write_bytes(content)
        own(report)

    def inside(self, ref: EnvironmentRef) -> Spool:
        """Return a way into a running environment."""
        return Spool(self.run_directory(ref))


def started(subject: EngineUnderTest, handle: str = "alice", **changes: Any) -> Spool:
    """Create and start an environment and return a way in."""
    spec = subject.spec(handle, **changes)
    subject.engine.create(spec)
    subject.engine.start(spec.ref)
    return subject.inside(spec.ref)


def own(path: Path) -> None:
    """Give a path to the environment's user; only root can, and only real engines care."""
    if os.geteuid() == 0:
        os.chown(path, UID, GID)


@contextmanager
def _listening(place: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(place.parent, os.O_PATH)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{place.name}")  # sun_path holds 108 bytes
        finally:
            os.close(directory)
        listener.listen()
        try:
            yield listener
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _greet_and_echo(listener: socket.socket, greeting: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_echo, args=(connection, greeting), daemon=True).start()


def _echo(connection: socket.socket, greeting: bytes) -> None:
    try:
        with connection:
            connection.sendall(greeting)
            received = bytearray()
            while piece := connection.recv(65536):
                received += piece
            connection.sendall(received)
    except OSError:  # the other side is gone
        return


def probe_script() -> bytes:
    """Return the entrypoint of the suite's image."""
    return (Path(__file__).parent / "probe.sh").read_bytes()
