"""All numbers together: each is declared, bounded and says nothing that it should not."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.audit.record import Record
from gateway.errors import EngineError, StoreError
from gateway.metrics import families
from gateway.metrics.collection import Collection
from gateway.metrics.nodes import OnNodes
from tests.support.busy_site import ADDRESS, FINGERPRINT, collection
from tests.unit.metrics.records import record

USERS = 1000
BYTES_MAX = 2_000_000
CALLS_MAX = 80_000  # 0.4 microseconds each: within the 50 ms of a scrape


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    made, events = collection(tmp_path_factory.mktemp("site"), USERS)
    for one in _one_of_each():
        events.count(one)
    return generate_latest(made.registry()).decode()


def _one_of_each() -> list[Record]:
    """Return what makes every counter have a sample."""
    slice_of_first = "MIG-00000000-0000-4000-8000-000000000000"
    return [
        record("session.closed", kind="shell", sent_bytes=10, received_bytes=2),
        record("gpu.quarantined", reason="critical error Xid 79", gpu=slice_of_first),
        record("environment.woken", seconds=0.7),
    ]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_nodes_are_told_apart(text: str) -> None:
    """A stopped environment counts nowhere, one on a node that is away is unknown and counts as no running one."""

    def of(name: str) -> list[float]:
        return [value(text, f"devgw_node_{name}", node=node) for node in "abc"]

    assert of("ready") == [1, 1, 0]
    assert of("takes_new") == [1, 0, 1]
    assert of("environments") == [USERS / 2 - 1, USERS / 2, 0]
    assert of("used_gpus") == [1, 0, 0]
    assert of("gpus")[0] == 2
    assert of("gpus")[1] > 0  # an engine that leaves them to the gateway: those of its own inventory
    assert of("gpus")[2] == 0


def test_an_engine_that_is_away_says_nothing_of_nodes(tmp_path: Path) -> None:
    """What it said a minute ago is not what is now; everything else is there."""
    made, _ = collection(tmp_path, 10)

    def away() -> OnNodes:
        raise EngineError("engine.unreachable", "the engine does not answer")

    made._sources = dataclasses.replace(made._sources, nodes=away)
    made.measure()
    text = generate_latest(made.registry()).decode()
    assert "devgw_node_ready{" not in text
    assert "devgw_environments{" in text


def test_every_declared_family_has_samples_and_no_other_is_there(text: str) -> None:
    """The reference page is made from the declarations, so that it names what there is."""
    shown = {family.name for family in text_string_to_metric_families(text) if family.samples}
    declared = {family.name for family in families.FAMILIES}
    may_be_empty = {families.COLLECT_ERRORS.name, families.LEASED_SECONDS.name, families.JOURNAL_LAST.name}
    assert shown - declared == set()
    assert declared - shown - may_be_empty == set()


def test_labels_are_those_declared(text: str) -> None:
    for family in families.FAMILIES:
        for shown in text_string_to_metric_families(text):
            if shown.name == family.name:
                extra = {"le"} if family.kind == "histogram" else set()
                assert all(set(sample.labels) - extra == set(family.labels) for sample in shown.samples)


def test_no_address_and_no_key_is_shown(text: str) -> None:
    assert ADDRESS not in text
    assert FINGERPRINT not in text


def test_a_thousand_users_fit(text: str) -> None:
    """Bounded: what grows with users are a few series each."""
    assert len(text) < BYTES_MAX
    assert len(samples(text)) < 8 * USERS


def test_of_very_many_disks_the_fullest_are_there(text: str) -> None:
    """A site's alerts find whoever is near the end, and the number of series has an end of its own."""
    name = "devgw_environment_disk_used_bytes"
    shown = {labels for found, labels in samples(text) if found == name}
    assert len(shown) == 250
    assert value(text, name, user="u0999", environment="u0999") == 999 * 2**20
    assert value(text, "devgw_environment_disk_used_inodes", user="u0999", environment="u0999") == 999


def test_a_scrape_of_a_thousand_users_takes_few_steps(tmp_path: Path) -> None:
    """Calls of functions are counted, as seconds are another's where others run: `bench_metrics` has those."""
    made, _events = collection(tmp_path, USERS)
    registry = made.registry()
    generate_latest(registry)
    made._last_at = float("-inf")
    assert 10 * USERS < calls_of(lambda: generate_latest(registry)) < CALLS_MAX


def calls_of(step: Callable[[], object]) -> int:
    """Return how many functions written in Python are entered by a step."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


def test_slices_carry_their_gpu(text: str) -> None:
    """dcgm-exporter names the GPU; the slice stands beside it."""
    gpu, one = "GPU-00000000-0000-4000-8000-000000000000", "MIG-00000000-0000-4000-8000-000000000000"
    labels = {"UUID": gpu, "slice": one}
    assert value(text, "devgw_gpu_lease_info", **labels, user="u0000", environment="u0000") == 1
    assert value(text, "devgw_gpu_xid_errors_total", **labels, xid="79") == 1
    assert value(text, "devgw_gpu_utilization_ratio", UUID=gpu, slice="") == 0.71


def test_counts_are_the_stores(text: str) -> None:
    assert value(text, "devgw_environments", state="running") == USERS
    assert value(text, "devgw_connections") == USERS
    assert value(text, "devgw_channels", kind="forward") == USERS
    assert value(text, "devgw_connection_bytes_total", direction="sent") == 7 * USERS
    assert value(text, "devgw_gpus", state="leased") == 56
    assert value(text, "devgw_gpu_queue_length") == 50
    assert value(text, "devgw_gpu_queue_oldest_wait_seconds") > 3500
    assert value(text, "devgw_doctor_finding", check="site.private", level="failure") == 1


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says which it was."""
    made, _events = collection(tmp_path, 3)

    def broken(_self: object) -> None:
        raise StoreError("store.unusable", "no such table")

    monkeypatch.setattr("gateway.store.users.Users.count", broken)
    text = generate_latest(made.registry()).decode()
    assert value(text, "devgw_collect_errors", part="users") == 1
    assert value(text, "devgw_connections") == 3
    assert "devgw_users{" not in text


def test_registering_collects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _events = collection(tmp_path, 1)
    monkeypatch.setattr(Collection, "collect", lambda _self: pytest.fail("collected"))
    made.registry()
