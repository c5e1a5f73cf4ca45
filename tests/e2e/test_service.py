"""`devgw serve` under a service manager: what it says on NOTIFY_SOCKET through start, reload and stop."""

import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine


@pytest.fixture
def inbox(fresh_gateway: GatewayProcess) -> Iterator[socket.socket]:
    """Where the gateway's words arrive."""
    name = f"devgw-test-{fresh_gateway.port}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        heard.settimeout(30)
        fresh_gateway.variables = {**fresh_gateway.variables, "NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "60000000"}
        yield heard


def test_start_reload_and_stop_are_told(fresh_gateway: GatewayProcess, inbox: socket.socket) -> None:
    """Ready only when the port is open; a reload begins and ends; the drain is announced."""
    fresh_gateway.serve()
    assert {inbox.recv(4096), inbox.recv(4096)} == {b"READY=1", b"WATCHDOG=1"}
    assert fresh_gateway.server is not None
    fresh_gateway.server.send_signal(signal.SIGHUP)
    assert inbox.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert inbox.recv(4096) == b"READY=1"
    assert fresh_gateway.stop() == 0
    assert inbox.recv(4096) == b"STOPPING=1"
