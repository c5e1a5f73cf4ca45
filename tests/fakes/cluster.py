"""A fake engine of several machines. A node can be cut off: what runs there goes on, and nobody can see or stop it.

`is_careful=False` makes an engine like a cluster's API that takes every order: a stop of what cannot be reached does
nothing, a delete forgets the environment while its processes go on. The gateway's own rules must hold on it too.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.engines.interface import Node, ObservedEnvironment, Progress, Service, ignore_progress
from gateway.engines.nodes import require_away, unreachable
from gateway.errors import EngineError
from gateway.model import EnvironmentRef, EnvironmentSpec, Gpu, GpuUuid, NodeName
from tests.fakes.engine import FakeContainer, FakeDaemon, FakeEngine


@dataclass
class Machine:
    """A node: its GPUs, whether it can be reached, and what still runs there although the engine has forgotten it."""

    gpus: tuple[GpuUuid, ...] = ()
    is_up: bool = True


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

    def place(self, spec: EnvironmentSpec) -> NodeName:
        """Choose the node that has the GPUs, else the emptiest. Raises: EngineError `gpu.injection`."""
        fit = [name for name, one in self.machines.items() if one.is_up and set(spec.gpus) <= set(one.gpus)]
        if not fit:
            raise EngineError("gpu.injection", "no node that answers has these GPUs", "'devgw nodes' shows which do")
        return min(fit, key=lambda name: sum(one.node == name for one in self.containers.values()))

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
        self.ghosts.append(Ghost(owner[1], self.containers.pop(owner), is_declared))
        self.networks.discard(owner)

    def writers(self) -> list[EnvironmentRef]:
        """Return whose home each running process tree writes to, but for nodes that were declared dead."""
        known = [ref for (_gateway, ref), one in self.containers.items() if one.running]
        return known + [ghost.ref for ghost in self.ghosts if ghost.container.running and not ghost.is_declared]


class ClusterEngine(FakeEngine):
    """One gateway's view of a fake cluster."""

    name = "fake-cluster"

    def __init__(self, daemon: FakeCluster, gateway_id: str = "one") -> None:
        super().__init__(daemon, gateway_id)
        self._cluster = daemon

    def nodes(self) -> list[Node]:
        self._require_reachable()
        return [
            Node(
                name,
                is_ready=one.is_up,
                gpus=tuple(Gpu(uuid, "NVIDIA H200", 1, str(index)) for index, uuid in enumerate(one.gpus)),
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
        for ref in self.unreachable():
            owner = self._owner(ref)
            if self._cluster.containers[owner].node == node:
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
