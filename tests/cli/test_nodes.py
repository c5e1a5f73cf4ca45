"""What becomes of an environment whose node is cut off, and what the journal says of it."""

import json

import pytest

from gateway.cli.program import run
from gateway.config import load_settings
from gateway.errors import EngineError, NodeError
from gateway.model import EnvironmentRef, EnvironmentState, NodeName
from tests.cli.site import Site, SiteApp

ALICE = EnvironmentRef.parse("alice")
NODE1 = NodeName("node1")


@pytest.fixture
def cluster(site: Site) -> Site:
    """A site whose engine has two machines; alice runs on the first."""
    site.happens("there are two machines")
    site.run("devgw init -q")
    assert site.run("devgw create alice --key alice.pub --gpu 1 -q").exit_code == 0
    return site


def gateway_of(site: Site) -> SiteApp:
    """Return the parts of a gateway that serves."""
    return SiteApp(load_settings(), site.engine, site.builder, site.daemon)


def journaled(site: Site, code: str) -> list[dict[str, object]]:
    """Return the records of a code."""
    lines = site.run(f"devgw audit log --action {code} -o json").stdout.splitlines()
    return [json.loads(line.replace("\n", "")) for line in lines]


@pytest.mark.emits("environment.unreachable", "environment.returned")
def test_a_node_that_goes_and_comes_is_journaled_once_each(cluster: Site) -> None:
    """However often the gateway looks; and what runs goes on."""
    gateway = gateway_of(cluster)
    gateway.environment_monitor.settle()
    running = dict(cluster.daemon.containers)
    cluster.happens("node1 is cut off")
    for _look in range(3):
        gateway.environment_monitor.go_round(tidies=True)
    assert [record["environment"] for record in journaled(cluster, "environment.unreachable")] == ["alice"]
    assert journaled(cluster, "environment.returned") == []
    assert gateway.table.require(ALICE).state is EnvironmentState.RUNNING
    cluster.happens("node1 returns")
    for _look in range(3):
        gateway.environment_monitor.go_round(tidies=True)
    assert [record["environment"] for record in journaled(cluster, "environment.returned")] == ["alice"]
    assert (len(journaled(cluster, "environment.unreachable")), cluster.daemon.containers) == (1, running)
    gateway.journal.close()


@pytest.mark.emits("node.lost", "environment.stopped", "lease.released")
def test_a_node_declared_lost_is_journaled_with_what_it_cost(cluster: Site) -> None:
    """Who said so, of which node, and each environment and lease with the reason."""
    cluster.happens("node1 is cut off")
    assert cluster.run("devgw node lost node1 --yes").exit_code == 0
    assert [record["detail"] for record in journaled(cluster, "node.lost")] == [
        {"node": "node1", "environments": "alice"}
    ]
    for code in ("environment.stopped", "lease.released"):
        records = journaled(cluster, code)
        assert [(one["environment"], one["reason"]) for one in records] == [
            ("alice", "its node node1 was declared lost")
        ]


@pytest.mark.emits("node.failed")
def test_what_an_engine_will_not_abandon_is_not_given_up(cluster: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease stays, and the journal has the reason."""
    cluster.happens("node1 is cut off")

    def refuse(_node: NodeName) -> None:
        raise EngineError("engine.failed", "the control plane says no")

    monkeypatch.setattr(cluster.engine, "abandon", refuse)
    assert cluster.run("devgw node lost node1 --yes").exit_code == 1
    assert "control plane says no" in str(journaled(cluster, "node.failed")[0]["reason"])
    gateway = gateway_of(cluster)
    assert (len(gateway.lease_table.held()), gateway.table.require(ALICE).state) == (1, EnvironmentState.RUNNING)


def test_nothing_is_declared_lost_without_a_word(cluster: Site) -> None:
    """Neither by no answer nor by another's; a script must say so."""
    cluster.happens("node1 is cut off")
    assert cluster.run("devgw node lost node1").exit_code == 2
    assert journaled(cluster, "node.lost") == []
    assert gateway_of(cluster).engine.unreachable() == {ALICE: NODE1}


def test_a_journal_that_cannot_be_written_leaves_a_node_as_it_was(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that word says that a home has no writer, so it is durable first."""
    cluster.happens("node1 is cut off")
    gateway = gateway_of(cluster)

    def fail(*_arguments: object, **_named: object) -> None:
        raise EngineError("journal.failed", "no")

    monkeypatch.setattr(gateway.recorded, "note", fail)
    with pytest.raises(EngineError):
        gateway.node_operations.declare_lost(NODE1)
    assert gateway.engine.unreachable() == {ALICE: NODE1}
    gateway.journal.close()


def test_one_who_connects_is_told_which_node_does_not_answer(cluster: Site) -> None:
    """Neither dialled nor woken; the same word for `ensure_running`."""
    cluster.happens("node1 is cut off")
    gateway = gateway_of(cluster)
    for act in (
        lambda: gateway.environments.dial(ALICE, "ssh"),
        lambda: gateway.environments.ensure_running(ALICE),
    ):
        with pytest.raises(NodeError, match="node node1 does not answer"):
            act()
    assert run(["show", "alice", "-q"], make_app=lambda _settings: gateway) == 0
