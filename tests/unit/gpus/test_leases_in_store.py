"""Leases on the real store: several gateways at once, and no GPU in two hands (invariant 11)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import pytest

from gateway.errors import LeaseError
from gateway.gpus.leases import Leases
from gateway.gpus.reading import Reading
from gateway.model import Egress, Environment, EnvironmentRef, EnvironmentState, Gpu, GpuUuid, Limits
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.users import Users

GPUS = tuple(Gpu(GpuUuid(f"GPU-{number:08d}-aaaa-4bbb-8ccc-dddddddddddd"), "NVIDIA H200") for number in range(8))
ASKING = [EnvironmentRef.parse(f"user{number}") for number in range(12)]


class Host:
    """Eight GPUs."""

    def read(self) -> Reading:
        return Reading("nvml", GPUS)


@pytest.fixture
def url(database_url: str) -> str:
    """Return a database in which the environments that ask are known."""
    database = Database(database_url)
    for ref in ASKING:
        Users(database).ensure(ref.user, uid_start=20_000)
        EnvironmentTable(database).add(environment(ref))
    database.close()
    return database_url


def environment(ref: EnvironmentRef) -> Environment:
    return Environment(
        ref=ref,
        state=EnvironmentState.CREATING,
        engine="fake",
        image="img",
        limits=Limits(1, 1, 1, 1),
        gpu_request="1",
        gpus=(),
        datasets=(),
        egress=Egress.NONE,
        created_at=datetime.now(UTC),
        should_run=True,
    )


def test_twelve_gateways_that_ask_for_eight_gpus_get_one_each_or_the_reason(url: str) -> None:
    """Each has its own connection, as processes have; whoever loses a race chooses again."""
    start = Barrier(len(ASKING))

    def ask(ref: EnvironmentRef) -> str:
        database = Database(url)
        leases = Leases(LeaseTable(database), Host())
        start.wait()
        try:
            return leases.lease(ref, "1")[0]
        except LeaseError as exc:
            return exc.code
        finally:
            database.close()

    with ThreadPoolExecutor(len(ASKING)) as pool:
        outcomes = list(pool.map(ask, ASKING))
    assert sorted(outcomes) == sorted([*(gpu.uuid for gpu in GPUS), *["gpu.none-free"] * 4])
    database = Database(url)
    held = {lease.gpu: lease.ref for lease in LeaseTable(database).held()}
    database.close()
    assert held == {GpuUuid(uuid): ref for ref, uuid in zip(ASKING, outcomes, strict=True) if uuid.startswith("GPU-")}


def test_a_lease_of_several_is_all_or_nothing(url: str) -> None:
    database = Database(url)
    leases = Leases(LeaseTable(database), Host())
    leases.lease(ASKING[0], "5")
    with pytest.raises(LeaseError):
        leases.lease(ASKING[1], "4")
    assert len(LeaseTable(database).held()) == 5
    leases.release(ASKING[0])
    assert len(leases.lease(ASKING[1], "8")) == 8
    database.close()
