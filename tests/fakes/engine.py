"""An engine in memory that passes the contract suite, with a hook before and after every step for failures and crashes.

A daemon outlives the engines that speak to it, as a real one outlives the gateway.
"""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.engines.digest import digest_of
from gateway.engines.interface import (
    IMAGE_LABEL_PREFIX,
    EngineReport,
    Image,
    Load,
    Node,
    ObservedEnvironment,
    Progress,
    Service,
    ignore_progress,
    named,
)
from gateway.engines.mounts import require_sources
from gateway.engines.nodes import OneNode
from gateway.engines.run_directory import RunDirectory, absent
from gateway.engines.variables import refuse_reserved
from gateway.errors import ConflictError, EngineError, NotFoundError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid, NodeName

_SIGTERM_EXIT = 143
THE_HOST = NodeName("gpu-host")


class Crash(BaseException):
    """The caller was killed at this step: nothing after it runs, no clean-up either."""


@dataclass
class FakeContainer:
    """An environment's process tree, reduced to what a ObservedEnvironment tells."""

    spec: EnvironmentSpec
    node: NodeName
    digest: str = ""
    running: bool = False
    exit_code: int | None = None
    detail: str = ""
    log: list[str] = field(default_factory=list)
    load: Load = field(default_factory=lambda: Load(0.0, 1 << 20))
    """What it uses; each look finds half a second more."""


_Owner = tuple[str, EnvironmentRef]


class FakeDaemon:
    """What is there whoever asks. `at_step` is called with a step's name before it and with `<name>/done` after it.

    It may raise a DevgwError (the step fails) or a Crash (the caller is gone). Steps: `create.network`,
    `create.container`, `start.process`, `stop.process`, `delete.container`, `delete.network`.
    """

    def __init__(self, *, gpus: frozenset[GpuUuid] = frozenset(), cpus: int = 8) -> None:
        self.gpus = gpus
        self.cpus = cpus
        self.images: dict[str, Image] = {}
        self.first_words: dict[str, str] = {}
        self.registry: dict[str, Image] = {}
        self.image_files: dict[str, dict[str, bytes]] = {}
        self.containers: dict[_Owner, FakeContainer] = {}
        self.networks: set[_Owner] = set()
        self.is_reachable = True
        self.at_step: Callable[[str], None] = lambda _step: None
        self.turn = threading.RLock()

    def add_image(self, reference: str, labels: dict[str, str], says: str = "") -> None:
        """Have an image; its entrypoint writes `says` when it starts."""
        self.images[reference] = Image(reference, f"sha256:{len(self.images):064x}", labels)
        self.first_words[reference] = says

    def image(self, reference: str) -> Image:
        """Find an image by name or digest. Raises: KeyError."""
        if reference in self.images:
            return self.images[reference]
        named = next(image for image in [*self.images.values(), None] if image is None or image.digest == reference)
        if named is None:
            raise KeyError(reference)
        return Image(reference, named.digest, named.labels)

    def do(self, step: str, act: Callable[[], object]) -> None:
        """Take one step, which nothing can interrupt half-way."""
        self.at_step(step)
        with self.turn:
            act()
        self.at_step(f"{step}/done")

    def connect(self, gateway_id: str = "one") -> "FakeEngine":
        """Return a gateway's view of it."""
        return FakeEngine(self, gateway_id)

    def place(self, spec: EnvironmentSpec) -> FakeContainer:
        """Say where an environment is made, and with which GPUs."""
        return FakeContainer(spec, THE_HOST, digest_of(spec))


class FakeEngine(OneNode):
    """One gateway's view of a fake daemon."""

    name = "fake"

    def __init__(self, daemon: FakeDaemon, gateway_id: str = "one") -> None:
        self._daemon = daemon
        self._gateway_id = gateway_id

    def report(self) -> EngineReport:
        self._require_reachable()
        return EngineReport(self.name, "1.0", "cdi" if self._daemon.gpus else "none", ("nothing here is real",))

    def nodes(self) -> list[Node]:
        self._require_reachable()
        return [Node(THE_HOST)]

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        self._require_reachable()
        require_sources(spec)
        self.image(spec.image)
        if self._owner(spec.ref) in self._daemon.containers:
            raise _exists(spec.ref)
        refuse_reserved(spec.variables)
        if unknown := set(spec.gpus) - self._daemon.gpus:
            raise EngineError("gpu.injection", f"unknown device {', '.join(sorted(unknown))}", "refresh the CDI specs")
        if (place := RunDirectory.of(spec)) is not None:
            place.remove_sockets()
        made_network = False
        try:
            if spec.egress != Egress.NONE:
                made_network = self._owner(spec.ref) not in self._daemon.networks
                self._daemon.do("create.network", lambda: self._daemon.networks.add(self._owner(spec.ref)))
            progress(f"making a container from {named(spec.image)}")
            self._daemon.do("create.container", lambda: self._add_container(spec))
        except EngineError:
            self._give_back(spec.ref, made_network=made_network)
            raise

    def start(self, ref: EnvironmentRef) -> None:
        self._require_reachable()
        container = self._found(ref)
        if not container.running:
            self._daemon.do("start.process", lambda: self._start(container))

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        self._require_reachable()
        container = self._daemon.containers.get(self._owner(ref))
        if container is not None and container.running:
            self._daemon.do("stop.process", lambda: self.end(ref, _SIGTERM_EXIT))

    def delete(self, ref: EnvironmentRef) -> None:
        self._require_reachable()
        owner = self._owner(ref)
        if owner in self._daemon.containers:
            self._daemon.do("delete.container", lambda: self._daemon.containers.pop(owner, None))
        if owner in self._daemon.networks:
            self._daemon.do("delete.network", lambda: self._daemon.networks.discard(owner))

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        return next(iter(self._seen(lambda one: one == ref)), None)

    def observe_all(self) -> list[ObservedEnvironment]:
        return self._seen(lambda _ref: True)

    def _seen(self, wanted: Callable[[EnvironmentRef], bool]) -> list[ObservedEnvironment]:
        self._require_reachable()
        with self._daemon.turn:
            mine = {
                ref: each
                for (gateway, ref), each in self._daemon.containers.items()
                if gateway == self._gateway_id and wanted(ref)
            }
            networks = {ref for gateway, ref in self._daemon.networks if gateway == self._gateway_id and wanted(ref)}
        whole = [_witness(container) for container in mine.values()]
        left = [
            ObservedEnvironment(
                ref,
                running=False,
                image="",
                uid=-1,
                gpus=(),
                spec_digest="",
                detail="half-made",
                partial=True,
                node=THE_HOST,
            )
            for ref in networks - mine.keys()
        ]
        return whole + left

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        place = self._run_directory(ref)
        if place is None:
            raise absent(service)
        return place.dial(service)

    def status(self, ref: EnvironmentRef) -> bytes | None:
        place = self._run_directory(ref)
        return None if place is None else place.status()

    def load(self, ref: EnvironmentRef) -> Load | None:
        self._require_reachable()
        container = self._daemon.containers.get(self._owner(ref))
        if container is None or not container.running:
            return None
        container.load = Load(container.load.cpu_seconds + 0.5, container.load.memory_bytes)
        return container.load

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        self._require_reachable()
        return "".join(f"{line}\n" for line in self._found(ref).log[-lines:])

    def image(self, reference: str) -> Image:
        self._require_reachable()
        try:
            return self._daemon.image(reference)
        except KeyError:
            raise NotFoundError("image.not-found", f"no image {reference}", "'devgw image build' makes one") from None

    def images(self) -> list[Image]:
        self._require_reachable()
        return [
            image
            for image in self._daemon.images.values()
            if any(key.startswith(IMAGE_LABEL_PREFIX) for key in image.labels)
        ]

    def end(self, ref: EnvironmentRef, code: int, detail: str = "") -> None:
        """Let the environment's entrypoint end by itself."""
        container = self._found(ref)
        container.running, container.exit_code, container.detail = False, code, detail

    def _run_directory(self, ref: EnvironmentRef) -> RunDirectory | None:
        container = self._daemon.containers.get(self._owner(ref))
        return None if container is None else RunDirectory.of(container.spec)

    def _owner(self, ref: EnvironmentRef) -> _Owner:
        return self._gateway_id, ref

    def _found(self, ref: EnvironmentRef) -> FakeContainer:
        try:
            return self._daemon.containers[self._owner(ref)]
        except KeyError:
            raise NotFoundError("environment.not-found", f"no environment {ref}", "'devgw list' shows all") from None

    def _add_container(self, spec: EnvironmentSpec) -> None:
        if self._owner(spec.ref) in self._daemon.containers:
            raise _exists(spec.ref)
        if spec.limits.cpus > self._daemon.cpus:
            raise EngineError("engine.failed", f"only {self._daemon.cpus} CPUs are available", "ask for fewer")
        self._daemon.containers[self._owner(spec.ref)] = self._daemon.place(spec)

    def _start(self, container: FakeContainer) -> None:
        container.running, container.exit_code, container.detail = True, None, ""
        container.log.append(self._words_of(container.spec.image))

    def _words_of(self, image: str) -> str:
        """Return what an image's entrypoint writes, by any of its names."""
        digest = self._daemon.image(image).digest
        names = [name for name, one in self._daemon.images.items() if one.digest == digest]
        return next((self._daemon.first_words[name] for name in names if name in self._daemon.first_words), "")

    def _give_back(self, ref: EnvironmentRef, *, made_network: bool) -> None:
        with self._daemon.turn:
            self._daemon.containers.pop(self._owner(ref), None)
            if made_network:
                self._daemon.networks.discard(self._owner(ref))

    def _require_reachable(self) -> None:
        if not self._daemon.is_reachable:
            raise EngineError("engine.unreachable", "the fake engine does not answer", "set is_reachable")


def _witness(container: FakeContainer) -> ObservedEnvironment:
    spec = container.spec
    return ObservedEnvironment(
        ref=spec.ref,
        running=container.running,
        image=spec.image,
        uid=spec.uid,
        gpus=spec.gpus,
        spec_digest=container.digest,
        exit_code=container.exit_code,
        detail=container.detail,
        node=container.node,
    )


def _exists(ref: EnvironmentRef) -> ConflictError:
    return ConflictError("environment.exists", f"the engine already has {ref}", f"'devgw delete {ref}' removes it")
