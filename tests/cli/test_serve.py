"""`devgw serve`: flags win over settings. What serving does is tested end to end."""

import pytest

from gateway.cli.program import run
from gateway.config import Settings
from tests.cli.site import Site


class Served:
    """Stands where the gateway would, and remembers under which settings it was made."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []

    def make(self, settings: Settings) -> "Served":
        self.settings.append(settings)
        return self


def test_serve_listens_where_the_flags_say(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag > variable > default, and what no flag says stays as it was."""
    monkeypatch.setenv("DEVGW_SERVER_PORT", "2300")
    served = Served()
    monkeypatch.setattr("gateway.app.serve.run", lambda _app: 0)  # at once, as after SIGTERM
    assert run(["serve", "--listen", "127.0.0.1"], make_app=served.make) == 0
    assert run(["serve", "--port", "2400"], make_app=served.make) == 0
    first, second = (settings.server for settings in served.settings)
    assert (first.listen_address, first.port) == ("127.0.0.1", 2300)
    assert (second.listen_address, second.port) == ("", 2400)
    assert first.public_host == "gw.example.org"
