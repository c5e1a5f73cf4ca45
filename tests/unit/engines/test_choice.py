"""Which engine is taken, and what of it is known before anybody is asked."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Settings
from gateway.engines.choice import EngineChoice
from gateway.errors import EngineError


def choose(tmp_path: Path, **sections: Any) -> EngineChoice:
    places = dict.fromkeys(("config_dir", "state_dir", "run_dir", "cache_dir"), tmp_path)
    return EngineChoice(Settings.model_validate({**places, **sections}), "gateway")


@pytest.fixture
def cluster(tmp_path: Path) -> EngineChoice:
    """One whose kubeconfig names nothing, so that whoever asks it fails."""
    return choose(tmp_path, engine={"kind": "kubernetes"}, kubernetes={"kubeconfig": str(tmp_path / "absent")})


def test_a_cluster_places_and_runs_nothing_here(cluster: EngineChoice, tmp_path: Path) -> None:
    """Known from the settings alone; a host's engines place nothing."""
    assert cluster.scheduling.places_gpus
    assert not cluster.runs_here
    host = choose(tmp_path, engine={"kind": "bubblewrap"})
    assert host.runs_here
    assert not host.scheduling.places_gpus


def test_it_is_made_without_asking_the_cluster(cluster: EngineChoice) -> None:
    """And says in one line that none is configured when it is asked."""
    engine = cluster.engine()
    assert engine.name == "kubernetes"
    assert cluster.daemons() == ()
    with pytest.raises(Exception, match="no cluster is configured") as refused:
        engine.report()
    assert refused.value.code == "config.no-cluster"  # type: ignore[attr-defined]


def test_images_of_a_cluster_are_elsewhere(cluster: EngineChoice) -> None:
    """Nothing lies here; each act on one says where images come from."""
    store = cluster.image_store()
    assert store.all() == []
    acts = [
        cluster.image_builder,
        lambda: store.pull("env", print),
        lambda: store.load(None, print),  # type: ignore[arg-type]
        lambda: store.name("sha256:0", "env"),
        lambda: store.remove("sha256:0"),
        lambda: store.package_files("sha256:0", bool),
    ]
    for act in acts:
        with pytest.raises(EngineError) as refused:
            act()
        assert refused.value.code == "image.elsewhere"
        assert "registry" in refused.value.message


def test_without_the_client_of_kubernetes_the_extra_is_named(
    cluster: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "gateway.engines.kubernetes.engine":
            raise ModuleNotFoundError("No module named 'kubernetes_asyncio'", name="kubernetes_asyncio")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineError, match="kubernetes_asyncio") as refused:
        cluster.engine()
    assert refused.value.code == "engine.absent"
    assert "devgw[kubernetes]" in refused.value.hint
