"""What the gateway is made of when it serves."""

from pathlib import Path

import pytest

from gateway.auth.shared_throttle import SharedThrottle
from gateway.config import load_settings
from gateway.store.database import Database


@pytest.mark.attack("G2", "exempt networks, as the settings of a gateway name them")
def test_networks_of_the_settings_are_never_banned(tmp_path: Path) -> None:
    """And everybody else is."""
    variables = {"HOME": str(tmp_path), "DEVGW_CONFIG_DIR": str(tmp_path), "DEVGW_STATE_DIR": str(tmp_path)}
    settings = load_settings({**variables, "DEVGW_SERVER_PER_SOURCE_PENALTY_EXEMPT": "192.0.2.0/24"})
    throttle = SharedThrottle(settings, Database(settings.database))
    for _ in range(50):
        throttle.failed("192.0.2.7", "alice")
        throttle.failed("198.51.100.7", "alice")
    assert throttle.ban_left_seconds("192.0.2.7", "alice") == 0
    assert throttle.ban_left_seconds("198.51.100.7", "alice") > 0
