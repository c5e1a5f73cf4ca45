"""A gateway on a fake cluster whose nodes are cut off, return and are declared lost at any moment.

One home has one writer, and nobody touches what cannot be seen: neither its rows nor its processes.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from gateway.environments.rounds import Records, Rounds
from gateway.environments.warning_schedule import WarningSchedule
from gateway.gpus.activity import NoActivity
from gateway.gpus.leases import Leases
from gateway.gpus.node_inventory import out_of_reach
from gateway.model import Actor, Environment, EnvironmentRef, GpuUuid, NodeName
from gateway.operations.nodes import NodeOperations
from gateway.operations.recorded import Recorded
from gateway.store.drains import DrainTable
from gateway.store.notices import NoticeTable
from policies.limits import Allowance
from tests.fakes.cluster import FakeCluster
from tests.fakes.recorder import MemoryRecorder
from tests.fakes.schedule import GPUS, Act, EightGpus, Host
from tests.support.databases import Databases

NODES = (NodeName("node1"), NodeName("node2"), NodeName("node3"))
_UNTOUCHED = frozenset({"tidy", "restart", "rounds"})


def three_machines(*, is_careful: bool) -> FakeCluster:
    """Return eight GPUs on two nodes, and a third without any."""
    uuids = [GpuUuid(gpu.uuid) for gpu in GPUS]
    machines = {NODES[0]: tuple(uuids[:4]), NODES[1]: tuple(uuids[4:]), NODES[2]: ()}
    return FakeCluster(machines, is_careful=is_careful)


@dataclass
class ClusterHost(Host):
    """The gateway beside its cluster. `act.who` chooses the node of an act on nodes."""

    of_nobody: ClassVar[frozenset[str]] = frozenset({"restart", "tidy", "cut", "heal", "lost", "rounds", "reap"})
    daemon: FakeCluster = field(default_factory=lambda: three_machines(is_careful=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now = datetime.now(UTC)
        self.rounds = Rounds(
            Records(self.table, self.ledger, NoticeTable(self.database)),
            self.environments,
            NoActivity(),
            lambda _user: Allowance(lease_seconds=60, idle_stop_seconds=60),
            WarningSchedule(),
            lambda: self.now,
        )
        recorded = Recorded(MemoryRecorder(), Actor("admin", "root"))
        self.nodes = NodeOperations(
            lambda: self.engine,
            self.environments,
            Leases(self.ledger, EightGpus()),
            DrainTable(self.database),
            recorded,
        )

    def run(self, act: Act) -> int:
        """Let a process act; what it must leave alone is compared before and after."""
        before = self.unknown_rows()
        steps = super().run(act)
        if act.kind in _UNTOUCHED and not isinstance(act.happens, Act):
            assert self.unknown_rows() == before, f"{act} acted on what nobody can see"
        self.require_one_writer()
        return steps

    def require_one_hand(self) -> None:
        super().require_one_hand()
        self.require_one_writer()

    def require_one_writer(self) -> None:
        """Never two, but on a node that an administrator declared dead."""
        writers = self.daemon.writers()
        assert len(writers) == len(set(writers)), f"a home with two writers: {sorted(writers)}"

    def unknown_rows(self) -> dict[EnvironmentRef, Environment | None]:
        """Return the rows of what nobody can see."""
        outer, self.daemon.at_step = self.daemon.at_step, lambda _step: None
        try:
            return {ref: self.table.get(ref) for ref in self.engine.unreachable()}
        finally:
            self.daemon.at_step = outer

    def require_settled(self) -> None:
        """The same once every node answers and what no row knows is removed."""
        for node in NODES:
            self.daemon.heal(node)
        self.run(Act("restart", 0))
        self.run(Act("reap", 0))
        super().require_settled()

    def out_of_reach(self) -> dict[GpuUuid, str]:
        return dict(out_of_reach(self.engine.nodes()))

    def _do(self, act: Act, ref: EnvironmentRef) -> None:
        node = NODES[act.who % len(NODES)]
        match act.kind:
            case "cut":
                self.daemon.cut(node)
            case "heal":
                self.daemon.heal(node)
            case "lost":
                self.ended += [one for one, at in self.engine.unreachable().items() if at == node]
                self.nodes.declare_lost(node)
            case "rounds":
                away = self.unknown_rows().keys()
                self.ended += self.running().keys() - away
                try:
                    for _round in range(4):
                        self.now += timedelta(minutes=20)
                        list(self.rounds.walk(lambda _ref, _line: None))
                finally:
                    self.ended += away - self.unknown_rows().keys()  # whose node returned meanwhile is idle like others
            case "reap":
                for orphan in self.reconciler.orphans():
                    self.ended.append(orphan.ref)
                    self.reconciler.reap(orphan.ref)
            case _:
                super()._do(act, ref)


def cluster_host(databases: Databases, *, is_careful: bool) -> ClusterHost:
    """Return a gateway beside a fresh cluster."""
    return ClusterHost(databases, daemon=three_machines(is_careful=is_careful))
