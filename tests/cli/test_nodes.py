"""What becomes of an environment whose node is cut off, and what the journal says of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.cli.program import run
from gateway.config import load_settings
from gateway.engines.interface import ObservedEnvironment, Scheduling
from gateway.errors import EngineError, NodeError
from gateway.model import EnvironmentRef, EnvironmentState, NodeName
from policies.limits import Allowance
from tests.cli.site import GPUS, Site, SiteApp

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
    gateway.duties.environment_monitor.settle()
    running = dict(cluster.daemon.containers)
    cluster.happens("node1 is cut off")
    for _look in range(3):
        gateway.duties.environment_monitor.go_round(tidies=True)
    assert [record["environment"] for record in journaled(cluster, "environment.unreachable")] == ["alice"]
    assert journaled(cluster, "environment.returned") == []
    assert gateway.table.require(ALICE).state is EnvironmentState.RUNNING
    cluster.happens("node1 returns")
    for _look in range(3):
        gateway.duties.environment_monitor.go_round(tidies=True)
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
        gateway.administration.nodes.declare_lost(NODE1)
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


def test_what_a_lost_node_ran_starts_elsewhere_with_another_gpu(cluster: Site) -> None:
    """And stays the only one when the node returns after all."""
    before = gateway_of(cluster).lease_table.held()[0].gpu
    cluster.happens("node1 is cut off")
    assert cluster.run("devgw node lost node1 --yes").exit_code == 0
    assert cluster.run("devgw start alice").exit_code == 0
    leases = gateway_of(cluster).lease_table.held()
    assert ([lease.ref for lease in leases], leases[0].gpu == before) == ([ALICE], False)
    cluster.happens("node1 returns")
    assert [(one.node, one.running) for one in cluster.engine.observe_all()] == [("node2", True)]


@pytest.mark.emits("lease.granted")
def test_the_ledger_follows_the_engine(cluster: Site) -> None:
    """The lease is of the GPU that the engine found; the environment is told its UUID, and the journal the node."""
    observed = cluster.engine.observe(ALICE)
    assert [lease.gpu for lease in gateway_of(cluster).lease_table.held()] == list(observed.gpus)
    about = json.loads((cluster.directory / "state/environments/alice/main/config/environment.json").read_text())
    assert about["gpus"] == list(observed.gpus)
    assert journaled(cluster, "lease.granted")[0]["reason"] == "asked for 1, found on node1"


@pytest.mark.parametrize("given", [0, 2])
def test_an_engine_that_gives_another_number_is_not_believed(
    cluster: Site, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    """The start fails, nothing is left, and no lease is made up."""
    observe = cluster.engine.observe
    uuids = tuple(GPUS[number].uuid for number in range(given))

    def lying(ref: EnvironmentRef) -> ObservedEnvironment | None:
        found = observe(ref)
        return None if found is None else replace(found, gpus=uuids)

    with monkeypatch.context() as patch:
        patch.setattr(cluster.engine, "observe", lying)
        done = cluster.run("devgw create bob --key bob.pub --gpu 1 -q")
    assert (done.exit_code, f"asked for 1 GPUs and the engine gave it {given}" in done.stderr) == (1, True)
    assert [lease.ref for lease in gateway_of(cluster).lease_table.held()] == [ALICE]
    assert [one.ref for one in cluster.engine.observe_all()] == [ALICE]


def test_devgws_queue_keeps_its_order_where_the_engine_only_places(cluster: Site) -> None:
    """A GPU is free, and kept for the one who waits for it already."""
    gateway = gateway_of(cluster)
    gateway.users.ensure("carol", uid_start=200000)
    gateway.queue_table.beat(EnvironmentRef.parse("carol"), "1", datetime.now(UTC) - timedelta(seconds=5))
    done = cluster.run("devgw create bob --key bob.pub --gpu 1 --no-wait")
    assert (done.exit_code, "kept for those who wait already" in done.stderr) == (3, True)
    gateway.queue_table.leave(EnvironmentRef.parse("carol"))
    assert cluster.run("devgw create bob --key bob.pub --gpu 1 --no-wait").exit_code == 0


@pytest.mark.parametrize(
    ("scheduling", "said"),
    [
        (Scheduling(), ["devgw", "devgw", "devgw"]),
        (Scheduling(places_gpus=True), ["the engine", "devgw", "devgw"]),
        (Scheduling(places_gpus=True, has_queue=True, ends_leases=True), ["the engine"] * 3),
        (Scheduling(has_queue=True, ends_leases=True), ["devgw", "devgw", "devgw"]),
    ],
)
def test_explain_says_who_decides(
    cluster: Site, monkeypatch: pytest.MonkeyPatch, scheduling: Scheduling, said: list[str]
) -> None:
    """An order of its own is nothing to an engine that does not place."""
    monkeypatch.setattr(type(cluster.engine), "scheduling", scheduling)
    lines = cluster.run("devgw policy explain alice create").stdout.splitlines()
    words = ("GPUs are chosen by", "the queue is kept by", "leases are ended by")
    shown = {word: line.removeprefix(word).strip() for line in lines for word in words if line.startswith(word)}
    assert [shown[word] for word in words] == said


def test_where_the_engine_ends_leases_devgw_gives_none_an_end(cluster: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the start nor in a round, whatever the policy says."""
    monkeypatch.setattr(
        type(cluster.engine), "scheduling", Scheduling(places_gpus=True, has_queue=True, ends_leases=True)
    )
    gateway = gateway_of(cluster)
    monkeypatch.setattr(gateway.policy, "allowance", lambda _user: Allowance(lease_seconds=1))
    gateway.environments.stop(ALICE)
    gateway.environments.start(ALICE)
    assert list(gateway.rounds.walk(lambda _ref, _line: None)) == []
    assert [lease.ends_at for lease in gateway.lease_table.held()] == [None]
    gateway.journal.close()


def test_where_the_engine_only_places_leases_end_as_the_policy_says(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = gateway_of(cluster)
    monkeypatch.setattr(gateway.policy, "allowance", lambda _user: Allowance(lease_seconds=3600))
    gateway.environments.stop(ALICE)
    gateway.environments.start(ALICE)
    assert gateway.lease_table.held()[0].ends_at is not None
    gateway.journal.close()


def test_a_node_can_be_named_and_is_remembered(cluster: Site) -> None:
    """It starts there again; when that node is lost, anywhere."""
    assert cluster.run("devgw create bob --key bob.pub --node node1 -q").exit_code == 0
    bob = EnvironmentRef.parse("bob")
    for _again in range(2):
        assert cluster.engine.observe(bob).node == "node1"
        assert cluster.run("devgw restart bob -q").exit_code == 0
    cluster.happens("node1 is cut off")
    cluster.run("devgw node lost node1 --yes")
    assert cluster.run("devgw start bob -q").exit_code == 0
    assert cluster.engine.observe(bob).node == "node2"


@pytest.mark.parametrize("name", ["nowhere", "Node1", "../node1", "node1 ", "*", "x" * 300])
def test_a_node_that_is_none_is_refused_before_anything_is_made(cluster: Site, name: str) -> None:
    done = cluster.run(f"devgw create bob --key bob.pub --node '{name}'")
    assert (done.exit_code, "there is no node" in done.stderr, "nodes: node1, node2" in done.stderr) == (4, True, True)
    assert gateway_of(cluster).users.get("bob") is None


@pytest.mark.emits("node.drained", "node.undrained", "environment.warned")
def test_a_drained_node_gets_nothing_new_and_its_users_are_told_once(cluster: Site) -> None:
    """What runs stays; a new one goes to the other node; a pinned one is refused until the drain ends."""
    assert cluster.run("devgw node drain node1 --reason 'new fans'").exit_code == 0
    gateway, said = gateway_of(cluster), []
    for _round in range(3):
        said += gateway.duties.environment_monitor.go_round(tidies=True)
    assert said == [(ALICE, "node node1 is being drained (new fans): your environment stays there until you stop it")]
    assert cluster.engine.observe(ALICE).running
    assert cluster.run("devgw create bob --key bob.pub -q").exit_code == 0
    assert cluster.engine.observe(EnvironmentRef.parse("bob")).node == "node2"
    done = cluster.run("devgw create carol --key bob.pub --node node1")
    assert (done.exit_code, "node1, which is drained: new fans" in done.stderr) == (6, True)
    assert gateway.table.get(EnvironmentRef.parse("carol")) is None
    assert "drained: new fans" in cluster.run("devgw nodes").stdout
    assert cluster.run("devgw node undrain node1").exit_code == 0
    assert cluster.run("devgw create carol --key bob.pub --node node1 -q").exit_code == 0
    gateway.journal.close()


def test_what_runs_on_a_drained_node_is_warned_and_stopped_and_wakes_elsewhere(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of a lease: warnings, a grace, time to save; the other environment notices nothing."""
    cluster.run("devgw create bob --key bob.pub --node node2 -q")
    assert cluster.run("devgw node drain node1 --stop-after 40m").exit_code == 0
    gateway, said, now = gateway_of(cluster), [], datetime.now(UTC)
    monkeypatch.setattr(gateway.rounds, "_now", lambda: now)
    codes: list[tuple[str, EnvironmentRef]] = []
    for _minute in range(50):
        found = gateway.rounds.walk(lambda ref, line: said.append((ref, line)))
        codes += [(finding.code, finding.ref) for finding in found]
        now += timedelta(minutes=1)
    assert codes == [("environment.warned", ALICE)] * 5 + [("environment.stopped", ALICE)]
    assert sum("its node is drained" in line for _ref, line in said) == 4
    assert gateway.environments.ensure_running(ALICE)
    assert cluster.engine.observe(ALICE).node == "node2"
    gateway.journal.close()


def test_one_host_that_is_drained_starts_nothing(site: Site) -> None:
    """All commands of use where there is one node; what runs goes on."""
    site.run("devgw init -q")
    site.run("devgw create alice --key alice.pub -q")
    assert site.run("devgw node drain gpu-host").exit_code == 0
    assert site.run("devgw create bob --key bob.pub").exit_code == 6
    assert site.engine.observe(ALICE).running
    assert site.run("devgw restart alice").exit_code == 6
    assert site.engine.observe(ALICE).running
    assert site.run("devgw node undrain gpu-host").exit_code == 0
    assert site.run("devgw restart alice -q").exit_code == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("drain nowhere", 4),
        ("drain ''", 4),
        ("undrain nowhere", 4),
        ("undrain node1", 6),
        ("drain node1 --stop-after soon", 2),
        ("drain node1 --stop-after -1h", 2),
        ("drain node1 --stop-after 0", 2),
    ],
)
def test_a_drain_that_makes_no_sense_is_refused(cluster: Site, line: str, code: int) -> None:
    """One line, a hint, and nothing is changed."""
    done = cluster.run(f"devgw node {line}")
    assert (done.exit_code, len(done.stderr.splitlines())) == (code, 2)
    assert gateway_of(cluster).drains.all() == {}


def test_doctor_looks_at_each_node(cluster: Site) -> None:
    """One that does not answer is a failure, one that is drained a warning, each by its name."""

    def found() -> dict[str, str]:
        report = json.loads(cluster.run("devgw doctor -o json").stdout)
        nodes = [one for one in report["findings"] if one["check"] == "node.state"]
        return {one["message"].split()[0].rstrip(":"): one["level"] for one in nodes}

    assert found() == {"node1": "ok", "node2": "ok"}
    cluster.happens("node1 is cut off")
    cluster.run("devgw node drain node2")
    assert found() == {"node1": "failure", "node2": "warning"}
