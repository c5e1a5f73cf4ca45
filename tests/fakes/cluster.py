"""A fake engine of several machines. A node can be cut off: what runs there goes on, and nobody can see or stop it.

`is_careful=False` makes an engine like a cluster's API that takes every order: a stop of what cannot be reached does
nothing, a delete forgets the environment while its processes go on. The gateway's own rules must hold on it too.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.engines.digest import digest_of
from gateway.engines.interface import Node, ObservedEnvironment, Progress, Scheduling, Service, ignore_progress
from gateway.engines.nodes import require_away, unreachable
from gateway.errors import EngineError, LeaseError, QueuedError
from gateway.gpu_requests import GpuRequest, is_of_kind, parse_gpu_request
from gateway.model import NOWHERE, EnvironmentRef, EnvironmentSpec, Gpu, GpuUuid, NodeName
from tests.fakes.engine import FakeContainer, FakeDaemon, FakeEngine


@dataclass
class Machine:
    """A node: its GPUs, whether it can be reached, and what still runs there although the engine has forgotten it."""

    gpus: tuple[GpuUuid, ...] = ()
    is_up: bool = True
    model: str = "NVIDIA H200"

    def described(self, gpu: GpuUuid) -> Gpu:
        return Gpu(gpu, self.model, 141 * 2**30, str(self.gpus.index(gpu)))


@dataclass(frozen=True)
class Ghost:
    """Processes that the engine no longer knows. `is_declared` where an administrator said that their node is dead."""

    ref: EnvironmentRef
    container: FakeContainer
    is_declared: bool


class FakeCluster(FakeDaemon):
    """Machines below one control plane, which outlives the engines that speak to it."""

    def __init__(self, machines: Mapping[str, tuple[GpuUuid, ...]], *, is_careful: bool = True) -> None:
        super().__init__(gpus=frozenset(gpu for gpus in machines.values() for gpu in gpus))
        self.machines = {NodeName(name): Machine(gpus) for name, gpus in machines.items()}
        self.is_careful = is_careful
        self.ghosts: list[Ghost] = []

    def connect(self, gateway_id: str = "one") -> "ClusterEngine":
        return ClusterEngine(self, gateway_id)

    def place(self, spec: EnvironmentSpec) -> FakeContainer:
        """Choose the emptiest node that has room, and GPUs there that nobody has.

        Raises:
            EngineError: `gpu.injection`, for GPUs that are named and on no such node.
            LeaseError: `gpu.too-many`, for more than any node has.
            QueuedError: `gpu.none-free`.
        """
        asked = parse_gpu_request(spec.gpu_request)
        allowed = {name: one for name, one in self.machines.items() if self._is_allowed(name, spec)}
        if spec.gpus:
            fit = {name: spec.gpus for name, one in allowed.items() if set(spec.gpus) <= set(one.gpus)}
            if not fit:
                raise EngineError("gpu.injection", "no node has these GPUs", "'devgw nodes' shows which do")
        else:
            if max((len(self._matching(one, asked)) for one in self.machines.values()), default=0) < asked.count:
                raise LeaseError("gpu.too-many", f"no node has {asked.count} such GPUs", "'devgw nodes' lists them")
            free = {name: self._free(one, asked) for name, one in allowed.items()}
            fit = {name: gpus[: asked.count] for name, gpus in free.items() if len(gpus) >= asked.count}
            if not fit:
                words = f"0/{len(self.machines)} nodes have room: insufficient nvidia.com/gpu"
                raise QueuedError("gpu.none-free", words, "'devgw gpus' shows who holds them")
        node = min(fit, key=lambda name: sum(one.node == name for one in self.containers.values()))
        return FakeContainer(replace(spec, gpus=tuple(fit[node])), node, digest_of(spec))

    def _is_allowed(self, name: NodeName, spec: EnvironmentSpec) -> bool:
        is_the_one = spec.node in {NOWHERE, name}
        return self.machines[name].is_up and is_the_one and name not in spec.avoided_nodes

    def _matching(self, machine: Machine, asked: GpuRequest) -> list[GpuUuid]:
        if asked.uuids:
            return [gpu for gpu in machine.gpus if gpu in asked.uuids]
        return [gpu for gpu in machine.gpus if is_of_kind(machine.described(gpu), asked)]

    def _free(self, machine: Machine, asked: GpuRequest) -> list[GpuUuid]:
        taken = {gpu for one in self.containers.values() for gpu in one.spec.gpus}
        return [gpu for gpu in self._matching(machine, asked) if gpu not in taken]

    def cut(self, node: NodeName) -> None:
        """Let nobody reach a node any more."""
        self.machines[node].is_up = False

    def heal(self, node: NodeName) -> None:
        """Let a node be reached again; first it ends what it should no longer run."""
        for ghost in [one for one in self.ghosts if one.container.node == node]:
            ghost.container.running = False
            self.ghosts.remove(ghost)
        self.machines[node].is_up = True

    def forget(self, owner: tuple[str, EnvironmentRef], *, is_declared: bool) -> None:
        """Have the control plane forget an environment whose node does not hear it."""
        if (container := self.containers.pop(owner, None)) is not None:  # another may have been first
            self.ghosts.append(Ghost(owner[1], container, is_declared))
        self.networks.discard(owner)

    def writers(self) -> list[EnvironmentRef]:
        """Return whose home each running process tree writes to, but for nodes that were declared dead."""
        known = [ref for (_gateway, ref), one in self.containers.items() if one.running]
        return known + [ghost.ref for ghost in self.ghosts if ghost.container.running and not ghost.is_declared]


class ClusterEngine(FakeEngine):
    """One gateway's view of a fake cluster."""

    name = "fake-cluster"
    scheduling = Scheduling(places_gpus=True)

    def __init__(self, daemon: FakeCluster, gateway_id: str = "one") -> None:
        super().__init__(daemon, gateway_id)
        self._cluster = daemon

    def nodes(self) -> list[Node]:
        self._require_reachable()
        return [
            Node(
                name,
                is_ready=one.is_up,
                gpus=tuple(map(one.described, one.gpus)),
                conditions=() if one.is_up else ("NotReady",),
            )
            for name, one in self._cluster.machines.items()
        ]

    def unreachable(self) -> Mapping[EnvironmentRef, NodeName]:
        self._require_reachable()
        return {
            ref: one.node
            for (gateway, ref), one in list(self._cluster.containers.items())
            if gateway == self._gateway_id and not self._cluster.machines[one.node].is_up
        }

    def abandon(self, node: NodeName) -> None:
        require_away(self.nodes(), node)
        for ref, at in self.unreachable().items():
            owner = self._owner(ref)
            if at == node:
                self._cluster.do("abandon", lambda owner=owner: self._cluster.forget(owner, is_declared=True))

    def create(self, spec: EnvironmentSpec, progress: Progress = ignore_progress) -> None:
        self._guard(spec.ref)
        super().create(spec, progress)

    def start(self, ref: EnvironmentRef) -> None:
        self._guard(ref)
        super().start(ref)

    def stop(self, ref: EnvironmentRef, timeout_seconds: float) -> None:
        self._guard(ref)
        if ref not in self.unreachable():
            super().stop(ref, timeout_seconds)

    def delete(self, ref: EnvironmentRef) -> None:
        self._guard(ref)
        if ref in self.unreachable():
            self._cluster.do("delete.container", lambda: self._cluster.forget(self._owner(ref), is_declared=False))
        else:
            super().delete(ref)

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        if (node := self.unreachable().get(ref)) is not None:
            raise unreachable(ref, node)
        return super().dial(ref, service)

    def status(self, ref: EnvironmentRef) -> bytes | None:
        return None if ref in self.unreachable() else super().status(ref)

    def logs(self, ref: EnvironmentRef, lines: int = 50) -> str:
        if (node := self.unreachable().get(ref)) is not None:
            raise unreachable(ref, node)
        return super().logs(ref, lines)

    def observe(self, ref: EnvironmentRef) -> ObservedEnvironment | None:
        found = super().observe(ref)
        return None if found is None else self._blurred(found)

    def observe_all(self) -> list[ObservedEnvironment]:
        return [self._blurred(found) for found in super().observe_all()]

    def _blurred(self, found: ObservedEnvironment) -> ObservedEnvironment:
        """Return what can be said of an environment whose node may not answer."""
        machine = self._cluster.machines.get(found.node)
        if machine is None or machine.is_up:
            return found
        return replace(found, running=False, is_unknown=True, exit_code=None, detail="")

    def _guard(self, ref: EnvironmentRef) -> None:
        node = self.unreachable().get(ref)
        if node is not None and self._cluster.is_careful:
            raise unreachable(ref, node)
