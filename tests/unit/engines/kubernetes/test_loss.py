"""When streams into a pod lead nowhere: it was removed, or its node does not answer; never because no watch spoke."""

from typing import Any

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.objects import Objects
from gateway.engines.kubernetes.streams.loss import Loss
from tests.unit.engines.kubernetes.made import node, pod_in

POD = pod_in({"running": {}})


@pytest.fixture
def objects() -> Objects:
    """Objects of a cluster that is asked nothing: the watches are told by hand."""
    settings = KubernetesSettings()
    return Objects(Cluster(settings), settings, "lab1")


def told(objects: Objects, kind: str, found: dict[str, Any], event: str = "ADDED") -> None:
    watched = objects.watched_pods if kind == "pods" else objects._nodes
    metadata = {**found["metadata"], "resourceVersion": "1"}
    watched._take({"type": event, "object": {**found, "metadata": metadata}})


def said(loss: Loss) -> tuple[bool, bool]:
    return loss.is_gone(), loss.is_away()


def test_a_pod_on_a_node_that_answers_is_not_lost(objects: Objects) -> None:
    loss = objects.loss_of(POD)
    told(objects, "nodes", node("n1"))
    told(objects, "pods", POD)
    assert said(loss) == (False, False)


def test_what_no_watch_has_told_of_yet_is_not_lost(objects: Objects) -> None:
    assert said(objects.loss_of(POD)) == (False, False)


@pytest.mark.parametrize("ready", ["Unknown", "False"])
def test_a_pod_whose_node_does_not_answer_is_away_and_not_gone(objects: Objects, ready: str) -> None:
    loss = objects.loss_of(POD)
    told(objects, "nodes", node("n1", ready=ready))
    assert said(loss) == (False, True)
    told(objects, "nodes", node("n1"), "MODIFIED")
    assert said(loss) == (False, False)


def test_another_nodes_silence_is_nothing_to_it(objects: Objects) -> None:
    loss = objects.loss_of(POD)
    told(objects, "nodes", node("n2", ready="Unknown"))
    assert said(loss) == (False, False)


@pytest.mark.parametrize("how", ["removed", "made anew"])
def test_a_pod_that_is_gone_has_no_streams(objects: Objects, how: str) -> None:
    """Another pod of the same name is not that one."""
    loss = objects.loss_of(POD)
    told(objects, "pods", POD)
    assert not loss.is_gone()
    if how == "removed":
        told(objects, "pods", POD, "DELETED")
    else:
        told(objects, "pods", {**POD, "metadata": {**POD["metadata"], "uid": "u2"}}, "MODIFIED")
    assert loss.is_gone()
