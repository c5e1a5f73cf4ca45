"""How long leases, reconciling and listing take at size, as JSON: `python -m tests.benchmarks.bench_leases`.

Each value is the median of several runs with its spread, beside its bound.
"""

import contextlib
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from sqlalchemy import insert

from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.reconcile import Reconciler
from gateway.errors import QueuedError
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.reading import Reading
from gateway.gpus.waiting import WaitingLine
from gateway.model import EnvironmentRef, EnvironmentSpec, EnvironmentState, Gpu, GpuUuid, Limits
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.queue import QueueTable
from gateway.store.schema import ENVIRONMENTS, LEASES, QUEUE, SHARES, USERS
from gateway.store.users import Users
from tests.fakes.engine import FakeContainer, FakeDaemon, FakeEngine
from tests.fakes.recorder import MemoryRecorder

NOW = datetime.now(UTC)
BOUNDS = {
    "lease_refused_ms": 10, "lease_granted_ms": 10, "reconcile_500_all_changed_s": 5, "reconcile_500_s": 5,
    "list_1000_s": 0.5,
}  # fmt: skip


class Many:
    """A host of 1,000 GPUs."""

    gpus = tuple(
        Gpu(GpuUuid(f"GPU-{n:08d}-0000-4000-8000-000000000000"), "NVIDIA H200", 1, str(n)) for n in range(1000)
    )

    def read(self) -> Reading:
        return Reading("nvml", self.gpus)


class Site:
    """A store with rows as asked for; `with` removes it."""

    def __init__(self, environments: int, *, waiting: int = 0, state: str = "running") -> None:
        self.root = Path(tempfile.mkdtemp())
        self.database = Database(f"sqlite:///{self.root / 'devgw.db'}")
        names = [f"user{n}" for n in range(max(environments, waiting))]
        row = {
            "name": "main", "state": state, "engine": "fake", "image": "image", "memory_bytes": 2**30, "cpus": 1,
            "pids": 64, "shm_bytes": 2**29, "gpu_request": "1", "datasets": [], "egress": "none",
            "should_run": state == "running", "created_at": NOW, "detail": "",
        }  # fmt: skip
        with self.database.transaction() as connection:
            users = [{"name": name, "uid": 200_000 + n, "created_at": NOW} for n, name in enumerate(names)]
            connection.execute(insert(USERS), users)
            connection.execute(insert(ENVIRONMENTS), [{"user": name, **row} for name in names])
            connection.execute(insert(SHARES), [{"user": name, "log_hours": n / 7 % 5} for n, name in enumerate(names)])
            if waiting:
                waiters = [
                    {"user": name, "name": "main", "gpu_request": "1", "asked_at": NOW, "seen_at": NOW + timedelta(1)}
                    for name in names
                ]
                connection.execute(insert(QUEUE), waiters)

    def hold(self, gpus: tuple[Gpu, ...]) -> None:
        """Give these GPUs to the first environments."""
        rows = [
            {"gpu_uuid": gpu.uuid, "user": f"user{n}", "name": "main", "leased_at": NOW, "counted_until": NOW}
            for n, gpu in enumerate(gpus)
        ]
        with self.database.transaction() as connection:
            connection.execute(insert(LEASES), rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.database.close()
        shutil.rmtree(self.root)


def measure(
    act: Callable[[], object], runs: int, unit: float = 1.0, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Return median and spread of several runs; `before` each something is put in order."""
    taken = []
    for _ in range(runs):
        before()
        begin = time.perf_counter()
        act()
        taken.append((time.perf_counter() - begin) * unit)
    return {"median": round(statistics.median(taken), 4), "least": round(min(taken), 4), "most": round(max(taken), 4)}


def bench_lease() -> dict[str, dict[str, float]]:
    """Decide for one environment among 1,000 GPUs and 10,000 who wait: the last of them, and the first."""
    with Site(10_000, waiting=10_000) as site:
        site.hold(Many.gpus[5:])
        table, queue = LeaseTable(site.database), QueueTable(site.database)
        leases = Leases(table, Many(), around=Surroundings(line=WaitingLine(queue, table)))
        line = [waiter.ref for waiter in queue.waiting(NOW)]
        return {
            "lease_refused_ms": measure(lambda: decide(leases, line[-1]), 20, 1000),
            "lease_granted_ms": measure(lambda: decide(leases, line[0]), 20, 1000, lambda: leases.release(line[0])),
        }


def decide(leases: Leases, ref: EnvironmentRef) -> None:
    with contextlib.suppress(QueuedError):
        leases.lease(ref, "1")


def bench_reconcile() -> dict[str, dict[str, float]]:
    """Settle 500 environments that run: none in the state the store remembers, then all, as after a restart."""
    daemon = FakeDaemon(gpus=frozenset(gpu.uuid for gpu in Many.gpus))
    with Site(500, state="stopped") as site:
        for number in range(500):
            ref = EnvironmentRef.parse(f"user{number}")
            spec = EnvironmentSpec(ref, 1, 1, "image", Limits(1, 1, 1, 1), (), gpus=(Many.gpus[number].uuid,))
            daemon.containers["one", ref] = FakeContainer(spec, running=True)
        table, ledger, engine = EnvironmentTable(site.database), LeaseTable(site.database), FakeEngine(daemon)
        places = LifecycleSettings(site.root, {}, lambda: "", read_only_root=True, start_timeout=5, stop_timeout=1)
        environments = EnvironmentLifecycle(
            table, Users(site.database), lambda: engine, Leases(ledger, Many()), places, MemoryRecorder()
        )
        reconciler = Reconciler(table, ledger, engine, environments)
        changed = measure(lambda: list(reconciler.run()), 1)
        assert len(ledger.held()) == 500
        assert all(row.state is EnvironmentState.RUNNING for row in table.all())
        return {"reconcile_500_all_changed_s": changed, "reconcile_500_s": measure(lambda: list(reconciler.run()), 5)}


def bench_list() -> dict[str, float]:
    """`devgw list` of 1,000 environments, in a process that has its modules already."""
    from gateway.app.composition import App
    from gateway.cli.program import run

    with Site(1000) as site:
        os.environ["DEVGW_STATE_DIR"] = os.environ["DEVGW_CONFIG_DIR"] = str(site.root)
        daemon = FakeDaemon()

        def make_app(settings: object) -> App:
            app = App(settings)  # type: ignore[arg-type]
            app.__dict__["engine"] = FakeEngine(daemon)
            return app

        def show() -> None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert run(["list", "-q"], make_app=make_app) == 0
            assert len(out.getvalue().splitlines()) == 1000

        show()
        return measure(show, 5)


def main() -> None:
    """Measure and print."""
    found = {**bench_lease(), **bench_reconcile(), "list_1000_s": bench_list()}
    for name, value in found.items():
        value["bound"] = BOUNDS[name]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
