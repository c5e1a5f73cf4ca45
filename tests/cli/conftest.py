"""One site for each test of the command line."""

from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.cli.site import Site


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Return a site whose every directory is temporary, on a host with 16 CPUs and two GPUs."""
    for name in ("config", "state", "run", "cache"):
        monkeypatch.setenv(f"DEVGW_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEVGW_SERVER_PUBLIC_HOST", "gw.example.org")
    monkeypatch.delenv("DEVGW_DEBUG", raising=False)
    monkeypatch.setattr("gateway.cli.quantities.host_cpus", lambda: 16.0)
    cheap_salt = bcrypt.gensalt(4)  # the default cost takes a quarter of a second for each create
    monkeypatch.setattr(bcrypt, "gensalt", lambda _cost: cheap_salt)
    monkeypatch.chdir(tmp_path)
    made = Site(tmp_path, capsys, monkeypatch)
    yield made
    made.engine.close()
