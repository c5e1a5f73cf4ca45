"""Schedules on several machines: a home has one writer, a GPU one hand, and what is unknown is left alone."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fakes.cluster_schedule import NODES, ClusterHost, cluster_host
from tests.fakes.schedule import GPUS, REFS, Act
from tests.support.databases import Databases

_KINDS = [
    *("create", "create", "create", "start", "stop", "delete", "purge", "dies", "tidy", "restart", "forget"),
    *("cut", "cut", "heal", "lost", "rounds", "reap"),
]
_BETWEEN = st.builds(Act, kind=st.sampled_from(["cut", "heal", "lost"]), who=st.integers(0, len(NODES) - 1))
_BACK_DURING_ROUNDS = [
    *(Act("create", 0), Act("create", 1), Act("cut", 1)),
    *(Act("rounds", 0, at=at, happens=Act("heal", 1)) for at in (0, 3)),
]
_LOST_TWICE = [
    *(Act("create", who) for who in range(4)),
    *(Act("cut", 0), Act("cut", 1)),
    *(Act("lost", 0, at=at, happens=Act("lost", who)) for at in (0, 1) for who in (0, 1)),
]
_LIMITS = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True, "database": None}


def acts(meanwhile: st.SearchStrategy[Act] | None = None) -> st.SearchStrategy[Act]:
    """Return acts of few users on few nodes, so that they meet."""
    happens: st.SearchStrategy[str | Act] = st.sampled_from(["", "", "killed", "fails"])
    return st.builds(
        Act,
        kind=st.sampled_from(_KINDS),
        who=st.integers(0, 4),
        gpus=st.sampled_from(["0", "1", "1", "2", GPUS[5].uuid]),
        at=st.integers(-1, 40),
        happens=happens if meanwhile is None else happens | meanwhile,
    )


@pytest.fixture(autouse=True)
def ready_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments answer as soon as they are started."""
    monkeypatch.setattr("gateway.environments.starting.wait_until_ready", lambda *_arguments: None)


def play(host: ClusterHost, schedule: list[Act]) -> None:
    """Play a schedule; at its end every node returns, and after all is deleted nothing is left."""
    try:
        for act in schedule:
            host.run(act)
            host.require_one_hand()
        host.require_settled()
        for environment in host.table.all():
            host.environments.delete(environment.ref, force=True)
        assert (host.daemon.containers, host.daemon.ghosts, host.ledger.held()) == ({}, [], [])
    finally:
        host.close()


@settings(max_examples=60, **_LIMITS)
@given(schedule=st.lists(acts(_BETWEEN), min_size=5, max_size=40))
@example(schedule=_BACK_DURING_ROUNDS)
@example(schedule=_LOST_TWICE)
def test_nodes_that_go_and_come_at_any_step_cost_no_home_its_one_writer(
    databases: Databases, schedule: list[Act]
) -> None:
    """On an engine that refuses to act on what it cannot reach."""
    play(cluster_host(databases, is_careful=True), schedule)


@settings(max_examples=60, **_LIMITS)
@given(schedule=st.lists(acts(), min_size=5, max_size=40))
def test_the_gateways_own_rules_hold_where_the_engine_takes_every_order(
    databases: Databases, schedule: list[Act]
) -> None:
    """As a cluster's API does, which forgets what it is told to delete while the processes go on."""
    play(cluster_host(databases, is_careful=False), schedule)


@pytest.mark.slow
@settings(max_examples=600, **_LIMITS)
@given(schedule=st.lists(acts(_BETWEEN), min_size=5, max_size=40), is_careful=st.just(value=True))
def test_many_more_schedules_on_several_machines(
    sqlite_databases: Databases, schedule: list[Act], *, is_careful: bool
) -> None:
    play(cluster_host(sqlite_databases, is_careful=is_careful), schedule)


@pytest.fixture
def host(sqlite_databases: Databases) -> ClusterHost:
    made = cluster_host(sqlite_databases, is_careful=False)
    made.run(Act("create", 0, GPUS[0].uuid))
    return made


@pytest.mark.parametrize("before", ["create", "stop", "dies"])
@pytest.mark.parametrize("act", ["tidy", "restart", "rounds", "reap", "start", "stop", "delete", "purge", "create"])
def test_nothing_is_done_about_an_environment_that_nobody_can_see(host: ClusterHost, before: str, act: str) -> None:
    """Whatever it was doing when its node was cut off, and whoever acts."""
    try:
        host.run(Act(before, 0))
        host.daemon.cut(NODES[0])
        rows, containers = host.unknown_rows(), dict(host.daemon.containers)
        for _again in range(3):
            host.run(Act(act, 0))
        assert host.daemon.containers.items() >= containers.items()
        assert {ref: row for ref, row in host.unknown_rows().items() if ref in rows} == rows
        assert host.daemon.ghosts == []
        host.require_settled()
    finally:
        host.close()


def test_an_orphan_on_a_node_cut_off_is_not_reaped(host: ClusterHost) -> None:
    """Its processes may write to a home that somebody else's gateway knows."""
    try:
        host.table.remove(REFS[0])
        host.daemon.cut(NODES[0])
        host.run(Act("reap", 0))
        assert ([orphan.is_unknown for orphan in host.reconciler.orphans()], host.daemon.ghosts) == ([True], [])
    finally:
        host.close()


def test_what_a_lost_node_ran_wakes_elsewhere_with_another_gpu(host: ClusterHost) -> None:
    """The first one ends when its node returns after all; the lease is where the new one is."""
    try:
        host.daemon.cut(NODES[0])
        host.nodes.declare_lost(NODES[0])
        assert host.ledger.held() == []
        host.environments.delete(REFS[0], force=True)
        host.run(Act("create", 0, GPUS[5].uuid))
        assert [(lease.gpu, lease.ref) for lease in host.ledger.held()] == [(GPUS[5].uuid, REFS[0])]
        host.daemon.heal(NODES[0])
        assert [one.node for one in host.engine.observe_all()] == [NODES[1]]
        host.require_settled()
    finally:
        host.close()
