"""The line to Docker breaks at each step that changes something: nothing half-made stays for good, nothing is lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.engines.docker.engine import DockerEngine
from gateway.engines.interface import Engine
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef
from tests.contract.subject import EngineUnderTest
from tests.fakes.breaking_proxy import Break, When, breaking_proxy

pytestmark = [pytest.mark.engine, pytest.mark.docker]

ALICE = EnvironmentRef.parse("alice")
MAKING = ["POST /networks/create", "POST /containers/create"]
REMOVING = ["DELETE /containers/.*", "DELETE /networks/.*"]


def through_a_break(
    real: EngineUnderTest, directory: Path, break_: Break, act: Callable[[Engine], None]
) -> EngineError:
    """Do something through a proxy that breaks, and return how it failed."""
    assert isinstance(real.engine, DockerEngine)
    with breaking_proxy(directory, os.environ["DOCKER_HOST"], break_) as url:
        engine = DockerEngine(url, real.engine.gateway_id)
        with pytest.raises(EngineError) as caught:
            act(engine)
        engine.close()
    assert break_.happened.is_set()
    return caught.value


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_", MAKING)
def test_a_create_that_lost_one_answer_leaves_nothing(
    real: EngineUnderTest, tmp_path: Path, request_: str, when: When
) -> None:
    """The daemon is back at once; the engine cannot know whether the request was done, and looks."""
    spec = real.spec(egress=Egress.INTERNET)
    error = through_a_break(real, tmp_path, Break(request_, when, stays_down=False), lambda engine: engine.create(spec))
    assert error.code == "engine.unreachable"
    assert real.engine.observe_all() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_", MAKING)
def test_what_a_create_left_when_the_daemon_stayed_down_can_be_deleted(
    real: EngineUnderTest, tmp_path: Path, request_: str, when: When
) -> None:
    """Whatever is there is witnessed under its name, so reconcile finds it; then the name is free."""
    spec = real.spec(egress=Egress.INTERNET)
    through_a_break(real, tmp_path, Break(request_, when, stays_down=True), lambda engine: engine.create(spec))
    assert {observed.ref for observed in real.engine.observe_all()} <= {ALICE}
    real.engine.delete(ALICE)
    assert real.engine.observe_all() == []
    real.engine.create(spec)
    real.engine.start(ALICE)
    assert real.engine.observe(ALICE).running


@pytest.mark.parametrize(("when", "is_running"), [("before", False), ("after", True)])
def test_a_start_whose_answer_was_lost_shows_in_the_witness(
    real: EngineUnderTest, tmp_path: Path, when: When, is_running: bool
) -> None:
    """A second start is right in both cases."""
    real.engine.create(real.spec())
    through_a_break(
        real, tmp_path, Break("POST /containers/.*/start", when, stays_down=True), lambda engine: engine.start(ALICE)
    )
    assert real.engine.observe(ALICE).running is is_running
    real.engine.start(ALICE)
    assert real.engine.observe(ALICE).running


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("request_", REMOVING)
def test_a_delete_that_was_cut_off_can_be_repeated(
    real: EngineUnderTest, tmp_path: Path, request_: str, when: When
) -> None:
    real.engine.create(real.spec(egress=Egress.INTERNET))
    real.engine.start(ALICE)
    through_a_break(real, tmp_path, Break(request_, when, stays_down=True), lambda engine: engine.delete(ALICE))
    real.engine.delete(ALICE)
    assert real.engine.observe_all() == []
