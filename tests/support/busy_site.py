"""A store with many users, environments, connections and leases, written row by row without the waits of real acts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert

from gateway.doctor.finding import Report, failure, ok
from gateway.engines.bubblewrap.process import Process
from gateway.engines.interface import Node, ObservedEnvironment
from gateway.environments.disk_limit import DiskUse
from gateway.gpus.reading import Reading
from gateway.gpus.sensors import Measurement, Sensors
from gateway.metrics.collection import Collection, Sources, Tables
from gateway.metrics.event_counts import EventCounts
from gateway.metrics.nodes import OnNodes
from gateway.metrics.user_disk import UserDisk
from gateway.model import EnvironmentRef, Gpu, GpuUuid, NodeName
from gateway.process.ownership import is_alive
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.queue import QueueTable
from gateway.store.schema import ENVIRONMENTS, LEASES, LIVE_SESSIONS, QUEUE, SHARES, USERS
from gateway.store.sessions import LiveSessionTable
from gateway.store.usage import UsageTable
from gateway.store.users import Users

ADDRESS, FINGERPRINT = "192.0.2.77", "SHA256:0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
SLICES_EACH = 7


class FixedSensors:
    """Eight GPUs, each cut into seven slices, busy."""

    def read(self) -> Sensors:
        return Sensors("580.1", "13.0", tuple(_devices()))


def _devices() -> list[Measurement]:
    found = []
    for number in range(8):
        gpu = GpuUuid(f"GPU-{number:08x}-0000-4000-8000-000000000000")
        found.append(Measurement(gpu, "NVIDIA H100", str(number), None, 71, 2**33, 2**36, 312.5, 61))
        for place in range(SLICES_EACH):
            one = GpuUuid(f"MIG-{number:08x}-{place:04x}-4000-8000-000000000000")
            found.append(Measurement(one, "NVIDIA H100 MIG 1g.10gb", f"{number}:{place}", gpu, None, 2**30, 2**33))
    return found


def fill(database: Database, users: int) -> None:
    """Write so many users, each with an environment and a connection; as many leases as there are slices."""
    now, own = datetime.now(UTC), Process.own()
    names = [f"u{number:04}" for number in range(users)]
    slices = [device.uuid for device in _devices() if device.parent]
    engine = {
        "engine": "docker", "image": "devgw/env:cpu", "memory_bytes": 1, "cpus": 1.0, "pids": 64, "shm_bytes": 1,
        "gpu_request": "1", "datasets": [], "egress": "none", "should_run": True, "created_at": now, "detail": "",
    }  # fmt: skip
    session = {
        "boot": own.boot, "pid": own.pid, "started": own.started, "fingerprint": FINGERPRINT, "address": ADDRESS,
        "channels": ["session shell", "forward localhost:8888"], "sent_bytes": 7, "received_bytes": 5, "since": now,
    }  # fmt: skip
    with database.transaction() as connection:
        connection.execute(
            insert(USERS), [{"name": name, "uid": 200_000 + n, "created_at": now} for n, name in enumerate(names)]
        )
        connection.execute(
            insert(ENVIRONMENTS), [engine | {"user": name, "name": "main", "state": "running"} for name in names]
        )
        connection.execute(
            insert(LIVE_SESSIONS), [session | {"id": name, "user": name, "environment": name} for name in names]
        )
        since = now - timedelta(hours=1)
        leases = [
            {"gpu_uuid": uuid, "user": name, "name": "main", "leased_at": since, "counted_until": since, "ends_at": now}
            for uuid, name in zip(slices, names, strict=False)
        ]
        connection.execute(insert(LEASES), leases)
        waiting = names[len(slices) :][:50]
        if waiting:
            connection.execute(insert(SHARES), [{"user": name, "log_hours": 0.0} for name in waiting])
            place = {"name": "main", "gpu_request": "1", "asked_at": since, "seen_at": now}
            connection.execute(insert(QUEUE), [place | {"user": name} for name in waiting])


def collection(root: Path, users: int) -> tuple[Collection, EventCounts]:
    """Return the metrics of a gateway with so many users."""
    database = Database(f"sqlite:///{root / 'devgw.db'}")
    fill(database, users)
    journal = root / "journal"
    journal.mkdir()
    (journal / "segment-000000000001.jsonl").write_text("")
    head = root / "journal_head.last"
    head.write_text("head")
    uses = {EnvironmentRef.parse(f"u{n:04}"): DiskUse(2**30, n * 2**20, 2**16, n) for n in range(users)}
    sources = Sources(
        journal_dir=journal,
        last_head_file=head,
        journal_lag=lambda: 0.004,
        directories={"state": root},
        disks=lambda: uses,
        inventory=lambda: Reading("nvml", tuple(Gpu(one.uuid, one.name) for one in _devices() if one.parent)),
        sensors=FixedSensors(),
        bans=lambda: 3,
        doctor=lambda: Report((ok("host.kernel", "fine"), failure("site.private", "open", "close it"))),
        duties=lambda: {"rounds of environments": 1.8e9},
        workers=2,
        nodes=lambda: on_nodes(users),
    )
    tables = Tables(
        Users(database), EnvironmentTable(database), LiveSessionTable(database, is_alive), LeaseTable(database),
        QueueTable(database), UsageTable(database),
    )  # fmt: skip
    events, disk = EventCounts(datetime.now(UTC)), UserDisk()
    disk.count(((f"u{number:04}", root / "journal") for number in range(1)), _never())
    made = Collection(tables, sources, events, disk)
    made.examine()
    return made, events


def on_nodes(users: int) -> OnNodes:
    """Return three nodes: with half of the environments, drained with the others, and away with one unknown."""
    half = users // 2
    seen = [
        ObservedEnvironment(
            EnvironmentRef.parse(f"u{n:04}"), n != 0, "devgw/env:cpu", 200_000 + n, (GpuUuid(f"GPU-{n}"),) * (n == 1),
            "", node=NodeName("a" if n < half else "b"),
        )
        for n in range(users)
    ]  # fmt: skip
    lost = ObservedEnvironment(
        EnvironmentRef.parse("carol"), False, "devgw/env:cpu", 1, (), "", node=NodeName("c"), is_unknown=True
    )
    nodes = (
        Node(NodeName("a"), gpus=(Gpu(GpuUuid("GPU-1"), "H200"), Gpu(GpuUuid("GPU-2"), "H200"))),
        Node(NodeName("b"), takes_new=False),
        Node(NodeName("c"), is_ready=False, gpus=()),
    )
    return OnNodes(nodes, (*seen, lost))


def _never():  # noqa: ANN202
    import threading

    return threading.Event()
