"""Claims that were made for an environment which never ran go with it; those that may hold files never do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes import names
from gateway.engines.kubernetes.engine import KubernetesEngine
from gateway.errors import EngineError
from gateway.model import EnvironmentSpec, Mount
from tests.unit.engines.kubernetes.api_server import WrittenAnswers, api_server
from tests.unit.engines.kubernetes.made import node, spec_of

_NAMESPACE = "/api/v1/namespaces/devgw"
_CLAIMS, _SECRETS = f"{_NAMESPACE}/persistentvolumeclaims", f"{_NAMESPACE}/secrets"
_POLICIES = "/apis/networking.k8s.io/v1/namespaces/devgw/networkpolicies"


@pytest.fixture
def answers() -> WrittenAnswers:
    def listed(*items: dict[str, Any]) -> dict[str, Any]:
        return {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": list(items)}

    found = WrittenAnswers()
    found.objects = {
        "/version": {"major": "1", "minor": "29", "gitVersion": "v1.29.3"},
        f"{_NAMESPACE}/pods": listed(),
        "/api/v1/nodes": listed(node("n1")),
    }
    return found


@pytest.fixture
def engine(answers: WrittenAnswers, tmp_path: Path) -> Iterator[KubernetesEngine]:
    with api_server(answers, tmp_path) as kubeconfig:
        made = KubernetesEngine(KubernetesSettings(kubeconfig=str(kubeconfig)), "gateway")
        yield made
        made.close()


def spec() -> EnvironmentSpec:
    volumes = Path("/var/lib/devgw/volumes")
    mounts = (Mount(volumes / "home", "/home/alice"), Mount(volumes / "logs", "/logs"))
    return spec_of(mounts=mounts)


def kept(answers: WrittenAnswers) -> set[str]:
    """Return the words of the claims that there are."""
    return {path.rpartition("-")[2] for path in answers.objects if path.startswith(f"{_CLAIMS}/")}


def test_an_environment_that_never_ran_takes_its_claims_along(
    engine: KubernetesEngine, answers: WrittenAnswers
) -> None:
    """An image that no node can get leaves nothing half-made."""
    engine.create(spec())
    assert kept(answers) == {"home", "logs"}
    engine.delete(spec().ref)
    assert kept(answers) == set()


def test_claims_that_were_there_before_stay(engine: KubernetesEngine, answers: WrittenAnswers) -> None:
    """They hold what an earlier environment of that name left."""
    claim = names.claim_name("gateway", spec().ref, "home")
    answers.objects[f"{_CLAIMS}/{claim}"] = {"metadata": {"name": claim}}
    engine.create(spec())
    engine.delete(spec().ref)
    assert kept(answers) == {"home"}


def test_claims_of_a_pod_that_was_looked_into_stay(engine: KubernetesEngine, answers: WrittenAnswers) -> None:
    """Its start takes the mark away before anybody gets in."""
    engine.create(spec())
    (record,) = (one for path, one in answers.objects.items() if path.startswith(f"{_SECRETS}/"))
    del record["metadata"]["annotations"][names.NEW_CLAIMS]
    engine.delete(spec().ref)
    assert kept(answers) == {"home", "logs"}


@pytest.mark.parametrize("refused", [_SECRETS, f"POST {_CLAIMS}"])
def test_a_create_that_is_refused_midway_leaves_nothing(
    engine: KubernetesEngine, answers: WrittenAnswers, refused: str
) -> None:
    question = refused if refused.startswith("POST") else f"POST {refused}"
    answers.refusals[question] = (403, "Forbidden", 'secrets is forbidden: User "devgw" cannot create resource')
    with pytest.raises(EngineError) as refusal:
        engine.create(spec())
    assert refusal.value.code == "engine.forbidden"
    assert kept(answers) == set()
    assert not [path for path in answers.objects if path.startswith((f"{_POLICIES}/", f"{_SECRETS}/"))]
