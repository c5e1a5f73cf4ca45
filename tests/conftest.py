"""Leaves out what is about Docker itself when the tests run on another engine (DEVGW_TEST_ENGINE)."""

import pytest

from tests.engine_variables import engine_kind


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, not skip: on such a machine those tests have no subject."""
    if engine_kind() == "docker":
        return
    left_out = [item for item in items if item.get_closest_marker("docker")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("docker")]
