"""Leaves out what is about Docker itself where the tests, or this turn of a test, run on another engine.

Properties are held on what they compute, not on how fast this machine is just now.
"""

import pytest
from hypothesis import settings

from tests.support.engine_variables import engine_kind

settings.register_profile("devgw", deadline=None)
settings.load_profile("devgw")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, not skip: there those tests have no subject."""
    left_out = [item for item in items if item.get_closest_marker("docker") and _is_elsewhere(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_elsewhere(item: pytest.Item) -> bool:
    turn = getattr(item, "callspec", None)
    return engine_kind() != "docker" or (turn is not None and "bubblewrap" in turn.params.values())
