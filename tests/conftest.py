"""Leaves out what is about Docker itself where the tests, or this turn of a test, run on another engine.

Properties are held on what they compute, not on how fast this machine is just now. No test waits without an end: the
limit stands in pyproject.toml, and here for those that start environments; a test may have its own by `timeout`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import settings

from gateway.ssh.descriptors import raise_limit
from tests.support.engine_variables import SPEAK_DOCKER, engine_kind
from tests.support.journaled_codes import codes_since
from tests.support.processes import give_children_their_signals

raise_limit()  # hundreds of tests in one process hold more files than 1,024
settings.register_profile("devgw", deadline=None)
settings.load_profile("devgw")
give_children_their_signals()

_LONG = ("engine", "slow", "gpu")
_LONG_SECONDS = 900
"""The first of them also makes what its module or the session shares, such as an image on a busy machine."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, not skip: there those tests have no subject. Give those with an engine more time."""
    for item in items:
        if any(item.get_closest_marker(name) for name in _LONG) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_LONG_SECONDS))
    left_out = [item for item in items if _is_elsewhere(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_elsewhere(item: pytest.Item) -> bool:
    """Docker's are where its API is spoken; bubblewrap's own turns are not Podman's, nor Docker's without root."""
    turn = getattr(item, "callspec", None)
    is_bubblewraps = turn is not None and "bubblewrap" in turn.params.values()
    if item.get_closest_marker("docker"):
        return engine_kind() not in SPEAK_DOCKER or is_bubblewraps
    return is_bubblewraps and engine_kind() in SPEAK_DOCKER - {"docker"}


@pytest.fixture(autouse=True)
def _emits_what_it_says(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold a test marked `emits` to its word: each code must have come into a journal while it ran."""
    mark, began = request.node.get_closest_marker("emits"), datetime.now(UTC)
    yield
    if mark is not None:
        own = request.node.funcargs.get("tmp_path")
        missing = set(mark.args) - codes_since(tmp_path_factory.getbasetemp(), own, began)
        assert not missing, f"no record of {', '.join(sorted(missing))} was written"
