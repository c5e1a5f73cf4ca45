"""Nodes: what they are and hold, and the word of an administrator that one is dead."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gateway.audit.event import Event
from gateway.engines.interface import Engine, Node, ObservedEnvironment
from gateway.engines.nodes import find_node, require_away
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.errors import ConflictError
from gateway.gpus.leases import Leases
from gateway.model import EnvironmentRef, Gpu, NodeName
from gateway.operations.recorded import Recorded
from gateway.store.database import Database
from gateway.store.drains import Drain, DrainTable


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with what is on it. `free` are GPUs that somebody could have now."""

    node: Node
    gpus: tuple[Gpu, ...]
    free: tuple[Gpu, ...]
    environments: tuple[ObservedEnvironment, ...]


def state_word(node: Node) -> str:
    """Return the word by which administrators know how a node is."""
    if not node.is_ready:
        return "unreachable"
    return "ready" if node.takes_new else "drained"


def _drained(node: Node, drain: Drain | None) -> Node:
    if drain is None:
        return node
    until = f", stops at {drain.stop_at:%Y-%m-%d %H:%M} UTC" if drain.stop_at else ""
    return replace(node, takes_new=False, conditions=(*node.conditions, f"drained: {drain.reason}{until}"))


def nodes_in(database: Database, drains: DrainTable, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return nodes with what devgw knows of them; before `devgw init` nothing, and no database is made for asking."""
    path = database.path
    known = {} if path is not None and not path.exists() else drains.all()
    return tuple(_drained(node, known.get(node.name)) for node in nodes)


class NodeOperations:
    """An administrator's view of nodes and acts on them."""

    def __init__(
        self,
        engine: Callable[[], Engine],
        lifecycle: EnvironmentLifecycle,
        leases: Leases,
        drains: DrainTable,
        recorded: Recorded,
    ) -> None:
        self._engine = engine
        self._lifecycle = lifecycle
        self._leases = leases
        self._drains = drains
        self._recorded = recorded

    def all(self) -> list[NodeView]:
        """Return every node and what is on it. Raises: EngineError."""
        engine = self._engine()
        drains, all_observed = self._drains.all(), engine.observe_all()
        nodes = [_drained(node, drains.get(node.name)) for node in engine.nodes()]
        reading, now = self._leases.situation()
        views = []
        for node in nodes:
            here = tuple(sorted((one for one in all_observed if one.node == node.name), key=lambda one: one.ref))
            gpus = reading.gpus if node.gpus is None else node.gpus
            held = {gpu for one in here for gpu in one.gpus}
            usable = [gpu for gpu in gpus if gpu.uuid not in held and now.is_free(gpu.uuid)]
            may_be_had = node.is_ready and node.takes_new
            views.append(NodeView(node, gpus, tuple(usable) if may_be_had else (), here))
        return views

    def require(self, name: str) -> Node:
        """Return a node. Raises: NotFoundError `node.not-found`."""
        return find_node(self._engine().nodes(), name)

    def drain(self, name: str, reason: str, stop_after_seconds: int | None = None) -> Drain:
        """Keep new environments away from a node; what runs there stops after a time, or when its users stop it.

        The gateway tells its users, and warns them before the end as before any other.

        Raises:
            NotFoundError: `node.not-found`.
        """
        node, now = self.require(name).name, datetime.now(UTC)
        stop_at = None if stop_after_seconds is None else now + timedelta(seconds=stop_after_seconds)
        drain = Drain(node, reason, now, stop_at)
        text = "" if stop_at is None else stop_at.isoformat(timespec="seconds")
        with self._recorded.act("node.drained", node=node, reason=reason, stop_at=text):
            self._drains.put(drain)
        return drain

    def undrain(self, name: str) -> None:
        """Let a node have new environments again. Raises: NotFoundError; ConflictError `node.not-drained`."""
        node = NodeName(name)
        if node not in self._drains.all():
            self.require(name)
            raise ConflictError("node.not-drained", f"node {name} is not drained", "'devgw nodes' shows which are")
        with self._recorded.act("node.undrained", node=node):
            self._drains.remove(node)

    def on(self, node: NodeName) -> list[EnvironmentRef]:
        """Return the environments of a node that does not answer. Raises: NotFoundError, ConflictError `node.alive`."""
        require_away(self._engine().nodes(), node)
        return sorted(ref for ref, at in self._engine().unreachable().items() if at == node)

    def declare_lost(self, node: NodeName) -> Sequence[EnvironmentRef]:
        """Take a node that does not answer for dead; return its environments, which may be started elsewhere now.

        It is written down before anything is done about it, for nothing but this word says that a home has no writer.

        Raises:
            NotFoundError: `node.not-found`.
            ConflictError: `node.alive`.
            JournalError: nothing was done.
        """
        with self._recorded.failing("node.lost", node=node):
            refs = self.on(node)
            self._recorded.note("node.lost", node=node, environments=", ".join(map(str, refs)))
            self._engine().abandon(node)
            for ref in refs:
                if self._lifecycle.give_up(ref, node, self._recorded.actor):
                    reason = f"its node {node} was declared lost"
                    self._recorded.event(Event("environment.stopped", self._recorded.actor, str(ref), reason=reason))
        return refs
