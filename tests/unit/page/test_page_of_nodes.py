"""Where environments are spread over nodes, administrators see which is where and how each node is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway.app.composition import App
from gateway.config import Settings
from gateway.engines.interface import Node
from gateway.errors import EngineError
from gateway.model import EnvironmentRef, EnvironmentSpec, GpuUuid, Limits
from gateway.page.desk.answers import administration
from gateway.page.desk.site import Asker
from gateway.page.web.rendering import Rendering
from gateway.page.web.viewer import Viewer
from gateway.page.web.views.administration import placed
from policies.requests import Subject
from tests.fakes.cluster import FakeCluster

GPUS = tuple(GpuUuid(f"GPU-00000000-0000-4000-8000-00000000000{number}") for number in range(4))
CAROL = Asker(Subject("carol"), "carol", "0a1b", "admin")
VIEWER = Viewer("carol", "SHA256:abc", "192.0.2.7", "carol", "0a1b", "secret", "claim", "admin")


class OnCluster(App):
    """A gateway before a cluster that is made up."""

    runs_here = False

    def __init__(self, settings: Settings, cluster: FakeCluster) -> None:
        super().__init__(settings)
        self.engine = cluster.connect("one")


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster({"node1": GPUS[:2], "node2": GPUS[2:]})
    made.add_image("image:1", {})
    return made


@pytest.fixture
def site(cluster: FakeCluster, tmp_path: Path) -> Iterator[OnCluster]:
    made = OnCluster(
        Settings(config_dir=tmp_path, state_dir=tmp_path, run_dir=tmp_path / "run", cache_dir=tmp_path), cluster
    )
    limits = Limits(memory_bytes=2**30, cpus=1.0, pids=64, shm_bytes=2**29)
    alice = EnvironmentRef.parse("alice")
    made.engine.create(EnvironmentSpec(alice, 200_000, 200_000, "image:1", limits, mounts=(), gpu_request="1"))
    made.engine.start(alice)
    yield made
    made.journal.close()


def shown(nodes: dict[str, Any], *handles: str) -> str:
    """Return the words of the view."""
    rows = [
        {"handle": one, "state": "running", "detail": "", "gpus": [], "image": "image:1", "disk": "", "last_use": None}
        for one in handles
    ]
    found = {"rows": rows, "count": len(rows), "page": 1, "pages": 1}
    request = Request({"type": "http", "path": "/administration", "headers": [], "query_string": b""})
    values = {"search": "", "found": placed(found, nodes), "nodes": nodes, "paging": found | {"address": ""}}
    page = Rendering([]).page(VIEWER, request, "administration.html", values)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_each_node_is_told_with_what_is_on_it(site: OnCluster) -> None:
    found = administration.nodes(site, CAROL)
    where = site.engine.observe(EnvironmentRef.parse("alice")).node
    assert found["trouble"] == ""
    assert [(one["name"], one["state"], one["gpus"]) for one in found["rows"]] == [
        ("node1", "ready", 2), ("node2", "ready", 2)
    ]  # fmt: skip
    here, elsewhere = sorted(found["rows"], key=lambda one: one["name"] != where)
    assert (here["environments"], here["free"]) == (["alice"], 1)
    assert (elsewhere["environments"], elsewhere["free"]) == ([], 2)


def test_the_view_names_the_node_of_each_environment_and_lists_the_nodes(site: OnCluster) -> None:
    words = shown(administration.nodes(site, CAROL), "alice", "bob")
    where = site.engine.observe(EnvironmentRef.parse("alice")).node
    assert f" alice running {where} 0 image:1 " in words
    assert " bob running none 0 image:1 " in words
    assert f" {where} ready 2 1 alice " in words


def test_a_node_that_does_not_answer_is_told_as_that(site: OnCluster, cluster: FakeCluster) -> None:
    where = site.engine.observe(EnvironmentRef.parse("alice")).node
    cluster.cut(where)
    assert f" {where} unreachable 2 0 alice " in shown(administration.nodes(site, CAROL), "alice")


def test_a_cluster_that_does_not_answer_leaves_the_rest_of_the_view(
    site: OnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> list[Node]:
        raise EngineError("engine.unavailable", "the cluster does not answer")

    monkeypatch.setattr(site.engine, "nodes", silent)
    words = shown(administration.nodes(site, CAROL), "alice")
    assert "not known just now: the cluster does not answer" in words
    assert " alice running 0 image:1 " in words


def test_of_one_host_there_is_no_word_of_nodes(site: OnCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its engine is not asked for every view."""
    monkeypatch.setattr(OnCluster, "runs_here", True)
    monkeypatch.setattr(site.engine, "observe_all", None)
    assert "Node" not in shown(administration.nodes(site, CAROL), "alice")
