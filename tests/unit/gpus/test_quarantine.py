"""GPUs out of use: by hand, by a critical error, by somebody else's process; and GPUs that only a label holds."""

from datetime import UTC, datetime

import pytest

from gateway.errors import ConflictError, LeaseError, QueuedError
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.quarantine import Quarantines
from gateway.model import GpuUuid
from gateway.store.database import Database
from gateway.store.leases import LeaseTable
from tests.fakes.leases import FakeLeaseStore
from tests.unit.gpus.test_leases import ALICE, BOB, Host, gpu

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
SLICES = (gpu(1, "A100 MIG 1g.10gb", "1g.10gb"), gpu(2, "A100 MIG 1g.10gb", "1g.10gb"))


class Running:
    """Compute processes, by GPU."""

    def __init__(self, pids: dict[GpuUuid, tuple[int, ...]]) -> None:
        self.pids = pids

    def processes(self, uuids: object) -> dict[GpuUuid, tuple[int, ...]]:
        return {uuid: pids for uuid, pids in self.pids.items() if uuid in list(uuids)}

    def utilisation(self, _uuids: object) -> dict[GpuUuid, int]:
        return {}


@pytest.fixture
def table(database_url) -> LeaseTable:
    return LeaseTable(Database(database_url))


def test_a_gpu_with_a_process_from_outside_is_passed_over_as_long_as_it_runs() -> None:
    """nvidia-smi on the host shows it, and no environment has it."""
    activity = Running({gpu(0).uuid: (4711,)})
    host = Leases(FakeLeaseStore(), Host(gpu(0), gpu(1)), lambda: NOW, Surroundings(activity=activity))
    assert host.lease(ALICE, "1") == (gpu(1).uuid,)
    with pytest.raises(QueuedError) as caught:
        host.lease(BOB, "1")
    assert caught.value.message == "no free GPU (1 of 2 leased, 1 out of use)"
    assert host.situation()[1].unusable == {gpu(0).uuid: "used from outside devgw by process 4711"}
    activity.pids = {}
    assert host.lease(BOB, "1") == (gpu(0).uuid,)


def test_processes_on_a_leased_gpu_are_its_holders() -> None:
    """They make nothing unusable."""
    activity = Running({})
    host = Leases(FakeLeaseStore(), Host(gpu(0)), lambda: NOW, Surroundings(activity=activity))
    host.lease(ALICE, "1")
    activity.pids = {gpu(0).uuid: (4711,)}
    assert host.situation()[1].unusable == {}
    assert host.hold(ALICE, "1") == (gpu(0).uuid,)


def test_a_gpu_in_a_container_counts_as_held_also_without_a_row() -> None:
    """Invariant 11: a store from an old backup hands out nothing that somebody uses."""
    host = Leases(
        FakeLeaseStore(), Host(gpu(0), gpu(1)), lambda: NOW, Surroundings(containers=lambda: {gpu(0).uuid: BOB})
    )
    assert host.lease(ALICE, "1") == (gpu(1).uuid,)
    with pytest.raises(QueuedError):
        host.lease(ALICE.parse("carol"), "1")


def test_a_start_after_a_crash_keeps_its_gpus_and_another_request_does_not() -> None:
    """Held GPUs are kept while they are what is asked for; a second environment cannot slip in between."""
    store = FakeLeaseStore()
    host = Leases(store, Host(gpu(0), gpu(1)), lambda: NOW)
    host.lease(BOB, "1")
    held = host.lease(ALICE, "1")
    host.release(BOB)
    assert host.hold(ALICE, "1") == held == (gpu(1).uuid,)
    assert host.hold(ALICE, "2") == (gpu(0).uuid, gpu(1).uuid)


def test_a_gpu_out_of_use_is_not_kept_by_a_start() -> None:
    """Its next start gets another one."""
    store = FakeLeaseStore()
    host = Leases(store, Host(gpu(0), gpu(1)), lambda: NOW)
    assert host.lease(ALICE, "1") == (gpu(0).uuid,)
    store.out_of_use[gpu(0).uuid] = "critical error Xid 79"
    assert host.hold(ALICE, "1") == (gpu(1).uuid,)


def test_a_critical_error_takes_a_gpu_and_all_its_slices_out_of_use(table: LeaseTable) -> None:
    """Once each; index 1 is not index 10."""
    slices = tuple(type(one)(one.uuid, one.name, 1, f"1:{place}", one.mig_profile) for place, one in enumerate(SLICES))
    quarantines = Quarantines(table, Host(gpu(0), *slices, gpu(10)), lambda: NOW)
    assert quarantines.add_after_xid(1, 79) == [one.uuid for one in slices]
    assert quarantines.add_after_xid(1, 79) == []
    assert {row.gpu: row.reason for row in table.quarantined()} == dict.fromkeys(
        (one.uuid for one in slices), "critical error Xid 79"
    )


def test_a_quarantine_by_hand_is_lifted_by_hand(table: LeaseTable) -> None:
    """What is not there, or not quarantined, is said."""
    quarantines = Quarantines(table, Host(gpu(0)), lambda: NOW)
    quarantines.add(gpu(0).uuid.upper().replace("GPU-", "gpu-"), "fan broken")
    quarantines.lift(gpu(0).uuid)
    assert table.quarantined() == []
    with pytest.raises(ConflictError):
        quarantines.lift(gpu(0).uuid)
    with pytest.raises(LeaseError):
        quarantines.add(gpu(5).uuid, "fan broken")
