"""A cluster instead of a host: what is judged of it, and what is not asked of the gateway's own machine."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.doctor.diagnostics import diagnose
from gateway.doctor.facts import Facts
from gateway.doctor.finding import Finding, Level, Unasked
from gateway.engines.diagnostics import ClusterFacts, ImageFacts

WELL = ClusterFacts(gpu_resource="nvidia.com/gpu", gpus=4, oldest_version=(1, 20))


@pytest.fixture
def on_a_cluster(healthy: Facts) -> Facts:
    engine = replace(
        healthy.engine, name="kubernetes", version="v1.29.3", api_version=(1, 29), is_daemon=False, is_local=False,
        cluster=WELL,
    )  # fmt: skip
    return replace(healthy, engine=engine, image=ImageFacts("registry/env:cuda", {}, {}, is_elsewhere=True))


def judge(facts: Facts, **changes: Any) -> dict[str, Finding]:
    """Return the findings by check, of a cluster with something changed."""
    engine = {key: value for key, value in changes.items() if key == "api_version"}
    cluster = replace(WELL, **{key: value for key, value in changes.items() if key not in engine})
    found = replace(facts, engine=replace(facts.engine, cluster=cluster, **engine))
    return {finding.check: finding for finding in diagnose(found)}


def test_a_cluster_with_all_that_is_needed_is_well(on_a_cluster: Facts) -> None:
    found = judge(on_a_cluster)
    assert {one.level for one in found.values()} == {Level.OK}, found
    assert {"engine.version", "engine.rights", "engine.storage", "engine.network", "engine.gpus"} <= found.keys()


def test_the_gateways_own_machine_needs_no_gpu_and_no_room_for_environments(on_a_cluster: Facts) -> None:
    """A small machine without a driver may stand before large nodes."""
    small = replace(on_a_cluster, host=replace(on_a_cluster.host, memory_bytes=2**30, pid_max=4096))
    found = judge(small)
    assert found["driver.answers"].level is Level.OK
    assert not {"host.memory", "host.shm", "host.pids", "driver.module", "gpu.persistence"} & found.keys()
    assert {"host.clock", "host.disk.state"} <= found.keys()


@pytest.mark.parametrize(
    ("changes", "check", "level", "word"),
    [
        ({"missing_rights": ("create pods", "get pods/exec")}, "engine.rights", Level.FAILURE, "create pods, get"),
        ({"missing_classes": ("fast",)}, "engine.storage", Level.FAILURE, "no storage class fast"),
        ({"needs_default_class": True, "has_default_class": False}, "engine.storage", Level.WARNING, "default"),
        ({"accepts_open_network": True}, "engine.network", Level.WARNING, "accept_unenforced_network"),
        ({"gpus": 0}, "engine.gpus", Level.WARNING, "no node has nvidia.com/gpu"),
        ({"api_version": (1, 18)}, "engine.version", Level.FAILURE, "too old"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_wrong_is_one_finding_with_a_fix(
    on_a_cluster: Facts, changes: dict[str, Any], check: str, level: Level, word: str
) -> None:
    found = judge(on_a_cluster, **changes)
    assert found[check].level is level
    assert word in found[check].message
    assert found[check].fix
    assert [one.check for one in found.values() if one.level is not Level.OK] == [check]


def test_without_rights_nothing_else_is_said_of_the_cluster(on_a_cluster: Facts) -> None:
    """What may not be read is not called absent."""
    found = judge(on_a_cluster, missing_rights=("list nodes",), gpus=0)
    assert not {"engine.gpus", "engine.storage"} & found.keys()


def test_a_cluster_that_cannot_be_asked_says_how_it_could_be(on_a_cluster: Facts) -> None:
    """The hint is the engine's own, not Docker's."""
    why = Unasked("the cluster has no namespace devgw", "make it with 'kubectl create namespace'")
    found = {one.check: one for one in diagnose(replace(on_a_cluster, engine=why))}
    assert found["engine.answers"].level is Level.FAILURE
    assert found["engine.answers"].fix == "make it with 'kubectl create namespace'"
