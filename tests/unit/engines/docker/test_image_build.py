"""An engine that ends while it builds."""

import io
from pathlib import Path

import pytest

from gateway.engines.docker.image_build import connect_builder
from gateway.engines.docker.image_store import DockerImageStore
from gateway.engines.interface import ignore_progress
from gateway.errors import EngineError
from tests.fakes.docker_daemon import CUT, scripted_daemon


def test_a_build_that_its_engine_does_not_outlive_ends_in_one_line(tmp_path: Path) -> None:
    with scripted_daemon(tmp_path) as daemon:
        daemon.answers["POST /build"] = CUT
        builder = connect_builder(daemon.url)
        with pytest.raises(EngineError) as refusal:
            builder.build(io.BytesIO(b"context"), tag="a:1", arguments={}, labels={}, progress=lambda _step: None)
    assert (refusal.value.code, "\n" in refusal.value.message) == ("engine.unreachable", False)


def test_a_pull_that_its_engine_does_not_outlive_ends_in_one_line(tmp_path: Path) -> None:
    with scripted_daemon(tmp_path) as daemon:
        daemon.answers["POST /images/create"] = CUT
        with pytest.raises(EngineError) as refusal:
            DockerImageStore(daemon.url).pull("registry.example/a:1", ignore_progress)
    assert (refusal.value.code, "\n" in refusal.value.message) == ("engine.unreachable", False)
