"""What the doctor learns of a cluster, and a cluster too old to confine anybody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.diagnostics import version_in
from gateway.engines.kubernetes.engine import KubernetesEngine
from gateway.errors import EngineError
from tests.unit.engines.kubernetes.api_server import WrittenAnswers, api_server
from tests.unit.engines.kubernetes.made import node, spec_of

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
PODS = "/api/v1/namespaces/devgw/pods"


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": list(items)}


def storage_class(name: str, *, is_default: bool = False) -> dict[str, Any]:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    return {"metadata": {"name": name, "annotations": notes}}


@pytest.fixture
def answers() -> WrittenAnswers:
    found = WrittenAnswers()
    found.objects = {
        "/version": {"major": "1", "minor": "29+", "gitVersion": "v1.29.3-cloud"},
        PODS: listed(),
        "/api/v1/nodes": listed(node("n1")),
        CLASSES: listed(storage_class("nfs", is_default=True), storage_class("fast")),
    }
    return found


@pytest.fixture
def kubeconfig(answers: WrittenAnswers, tmp_path: Path) -> Iterator[Path]:
    with api_server(answers, tmp_path) as file:
        yield file


@pytest.fixture
def engine(kubeconfig: Path) -> Iterator[KubernetesEngine]:
    made = KubernetesEngine(KubernetesSettings(kubeconfig=str(kubeconfig)), "gateway")
    yield made
    made.close()


def test_version_gpus_and_classes_are_read(engine: KubernetesEngine) -> None:
    facts = engine.diagnostics().read()
    assert (facts.version, facts.api_version) == ("v1.29.3-cloud", (1, 29))
    assert facts.cluster is not None
    assert (facts.cluster.gpus, facts.cluster.gpu_resource) == (2, "nvidia.com/gpu")
    assert facts.cluster.missing_rights == facts.cluster.missing_classes == ()
    assert facts.cluster.needs_default_class
    assert facts.cluster.has_default_class


def test_missing_rights_are_named_as_the_role_writes_them(engine: KubernetesEngine, answers: WrittenAnswers) -> None:
    answers.denied = {"create pods", "get pods/exec", "watch nodes"}
    facts = engine.diagnostics().read()
    assert facts.cluster is not None
    assert facts.cluster.missing_rights == ("create pods", "get pods/exec", "watch nodes")


def test_a_class_that_is_not_there_is_named_and_one_that_may_not_be_seen_is_not(
    kubeconfig: Path, answers: WrittenAnswers
) -> None:
    settings = KubernetesSettings(kubeconfig=str(kubeconfig), home_class="gone", work_class="fast")
    engine = KubernetesEngine(settings, "gateway")
    try:
        facts = engine.diagnostics().read()
        assert facts.cluster is not None
        assert facts.cluster.missing_classes == ("gone",)
        answers.refusals[CLASSES] = (403, "Forbidden", "devgw cannot list storageclasses")
        hidden = engine.diagnostics().read()
        assert hidden.cluster is not None
        assert hidden.cluster.missing_classes == ()
    finally:
        engine.close()


def test_an_image_is_the_nodes(engine: KubernetesEngine) -> None:
    assert engine.diagnostics().image("registry/env:cuda").is_elsewhere


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ({"major": "1", "minor": "20"}, (1, 20)),
        ({"major": "1", "minor": "31+"}, (1, 31)),
        ({"major": "1", "minor": "9"}, (1, 9)),
        ({}, (0, 0)),
    ],
)
def test_versions_are_numbers(answer: dict[str, str], version: tuple[int, int]) -> None:
    """1.9 is older than 1.20, and clouds write a plus."""
    assert version_in(answer) == version


@pytest.mark.parametrize("minor", ["9", "18"])
def test_an_old_api_is_refused_before_anything_is_made(
    engine: KubernetesEngine, answers: WrittenAnswers, minor: str
) -> None:
    """It would drop the seccomp profile of a pod without a word."""
    answers.objects["/version"] = {"major": "1", "minor": minor, "gitVersion": f"v1.{minor}.0"}
    with pytest.raises(EngineError) as refused:
        engine.create(spec_of(mounts=()))
    assert refused.value.code == "engine.too-old"
    assert f"v1.{minor}.0" in refused.value.message
    assert {method for method, _path in answers.asked} == {"GET"}
