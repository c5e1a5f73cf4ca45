"""Who gets which GPU, and what is said when there is none."""

from datetime import UTC, datetime

import pytest

from gateway.errors import ConflictError, LeaseError, StoreError
from gateway.gpus.leases import Leases
from gateway.gpus.reading import Reading
from gateway.model import EnvironmentRef, Gpu, GpuUuid
from tests.fakes.leases import FakeLease, FakeLeaseStore

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")


def gpu(number: int, name: str = "NVIDIA H200", profile: str = "") -> Gpu:
    kind = "MIG" if profile else "GPU"
    return Gpu(
        GpuUuid(f"{kind}-{number:08d}-aaaa-4bbb-8ccc-dddddddddddd"), name, index=str(number), mig_profile=profile
    )


class Host:
    """An inventory that a test changes."""

    def __init__(self, *gpus: Gpu, notes: tuple[str, ...] = ()) -> None:
        self.gpus, self.notes = gpus, notes

    def read(self) -> Reading:
        return Reading("nvml" if self.gpus else "none", self.gpus, self.notes)


@pytest.fixture
def store() -> FakeLeaseStore:
    return FakeLeaseStore()


def leases(store: FakeLeaseStore, *gpus: Gpu, notes: tuple[str, ...] = ()) -> Leases:
    return Leases(store, Host(*gpus, notes=notes), now=lambda: NOW)


def row(taken: Gpu, ref: EnvironmentRef) -> FakeLease:
    return FakeLease(taken.uuid, ref, NOW)


def refusal(leases_: Leases, asked: str, ref: EnvironmentRef = BOB) -> LeaseError:
    with pytest.raises(LeaseError) as caught:
        leases_.lease(ref, asked)
    return caught.value


@pytest.mark.parametrize("asked", ["", "0"])
def test_no_gpu_asks_nobody(store: FakeLeaseStore, asked: str) -> None:
    assert leases(store).lease(ALICE, asked) == ()
    assert store.held() == []


def test_gpus_are_leased_in_the_inventorys_order(store: FakeLeaseStore) -> None:
    """And written down with their holder and the time."""
    assert leases(store, gpu(0), gpu(1), gpu(2)).lease(ALICE, "2") == (gpu(0).uuid, gpu(1).uuid)
    assert {(row.gpu, row.ref, row.leased_at) for row in store.held()} == {
        (gpu(0).uuid, ALICE, NOW),
        (gpu(1).uuid, ALICE, NOW),
    }


def test_what_is_held_is_passed_over(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, "1")
    assert host.lease(BOB, "1") == (gpu(1).uuid,)


def test_what_is_released_is_free_again(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0))
    host.lease(ALICE, "1")
    host.release(ALICE)
    host.release(ALICE)
    assert host.lease(BOB, "1") == (gpu(0).uuid,)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("1", 1),  # a whole one, never a slice
        ("h200", 3),
        ("a100", 1),
        ("a100-sxm4", 1),
        ("1g.10gb", 0),
        ("3G.40GB", 2),
        (gpu(3).uuid, 3),
        (gpu(3).uuid.upper(), 3),
        (gpu(0, profile="x").uuid, 0),
    ],
)
def test_the_kind_asked_for_is_chosen(store: FakeLeaseStore, asked: str, chosen: int) -> None:
    host = (
        gpu(0, "NVIDIA H100 MIG 1g.10gb", "1g.10gb"),
        gpu(1, "NVIDIA A100-SXM4-80GB"),
        gpu(2, "NVIDIA H100 MIG 3g.40gb", "3g.40gb"),
        gpu(3),
    )
    assert leases(store, *host).lease(ALICE, asked) == (host[chosen].uuid,)


def test_a_host_without_gpus_says_so_and_why(store: FakeLeaseStore) -> None:
    error = refusal(leases(store, notes=("NVML: Driver Not Loaded",)), "1")
    assert (error.code, error.message) == ("gpu.absent", "this host has no GPU (NVML: Driver Not Loaded)")
    assert "--gpu 0" in error.hint
    assert store.held() == []


def test_more_than_there_are_is_told_apart_from_none_free(store: FakeLeaseStore) -> None:
    """Waiting would not help."""
    error = refusal(leases(store, gpu(0), gpu(1)), "3")
    assert (error.code, error.message) == ("gpu.too-many", "3 GPUs asked, this host has 2")
    assert error.hint == "it has 2 × NVIDIA H200"  # noqa: RUF001 a multiplication sign


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("b200", "1 B200 GPU asked, this host has none"),
        ("h20", "1 H20 GPU asked, this host has none"),
        ("7g.80gb", "1 7g.80gb slice asked, this host has none"),
    ],
)
def test_a_kind_that_is_not_there_is_named(store: FakeLeaseStore, asked: str, message: str) -> None:
    """`h20` is no H200."""
    assert refusal(leases(store, gpu(0)), asked).message == message


def test_none_free_names_how_many_are_leased(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, "2")
    error = refusal(host, "1")
    assert (error.code, error.message) == ("gpu.none-free", "no free GPU (2 of 2 leased)")
    assert error.hint == "'devgw gpus' shows who holds them"


def test_too_few_free_names_how_many(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, "1")
    assert refusal(host, "2").message == "2 GPUs asked, 1 free (1 of 2 leased)"


def test_a_named_gpu_that_is_held_names_its_holder(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, gpu(1).uuid)
    error = refusal(host, f"{gpu(0).uuid},{gpu(1).uuid}")
    assert (error.code, error.message) == ("gpu.none-free", f"{gpu(1).uuid} is leased to alice")
    assert len(store.held()) == 1


def test_a_named_gpu_that_is_not_here_is_unknown(store: FakeLeaseStore) -> None:
    assert refusal(leases(store, gpu(0)), gpu(7).uuid).code == "gpu.unknown"


def test_an_environment_that_holds_gpus_gets_no_more(store: FakeLeaseStore) -> None:
    """A lease is for the environment's whole life; two of them would be released together."""
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, "1")
    with pytest.raises(ConflictError) as caught:
        host.lease(ALICE, "1")
    assert caught.value.code == "gpu.already-leased"


def test_a_lost_race_chooses_another_gpu(store: FakeLeaseStore) -> None:
    """Another gateway took the first one between choosing and taking."""
    rivals = iter([EnvironmentRef.parse("carol"), EnvironmentRef.parse("dave")])
    host = leases(store, gpu(0), gpu(1), gpu(2))

    def take_first() -> None:
        rival = next(rivals, None)
        if rival is not None:
            number = len(store.rows)
            store.rows[gpu(number).uuid] = row(gpu(number), rival)

    store.before_take = take_first
    assert host.lease(ALICE, "1") == (gpu(2).uuid,)


def test_a_race_for_the_last_gpu_ends_with_the_reason(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0))
    store.before_take = lambda: store.rows.setdefault(gpu(0).uuid, row(gpu(0), ALICE))
    assert refusal(host, "1").code == "gpu.none-free"


def test_a_store_that_always_says_taken_is_not_asked_for_ever() -> None:
    """Say a row of another kind blocks it; the caller gets an answer."""

    class Stubborn(FakeLeaseStore):
        asked = 0

        def take(self, *_args: object) -> None:
            self.asked += 1
            raise LeaseError("gpu.taken", "", "")

    store = Stubborn()
    assert refusal(leases(store, gpu(0)), "1").code == "gpu.taken"
    assert store.asked < 100


def test_other_errors_of_the_store_are_not_mistaken_for_a_race(store: FakeLeaseStore) -> None:
    def fail() -> None:
        raise StoreError("store.unusable", "disk full")

    store.before_take = fail
    with pytest.raises(StoreError):
        leases(store, gpu(0)).lease(ALICE, "1")


def test_the_situation_shows_who_has_what(store: FakeLeaseStore) -> None:
    host = leases(store, gpu(0), gpu(1))
    host.lease(ALICE, "1")
    reading, now = host.situation()
    assert [one.uuid for one in reading.gpus] == [gpu(0).uuid, gpu(1).uuid]
    assert now.holders == {gpu(0).uuid: ALICE}
