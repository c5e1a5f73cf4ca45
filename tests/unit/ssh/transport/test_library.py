"""The asyncssh that is installed is one that the gateway's limits were tried with, or nothing is served."""

import tomllib
from pathlib import Path

import asyncssh
import pytest

from gateway.app.composition import App
from gateway.app.serve import run
from gateway.config import load_settings
from gateway.errors import ConfigError
from gateway.ssh.transport.library import KNOWN, check_library, missing_parts
from gateway.ssh.transport.private_parts import OVERRIDDEN, READ
from tests.support.asyncssh_parts import overridden, read


def test_the_lists_are_what_this_tree_overrides_and_reads() -> None:
    """Whoever overrides another part adds it to `private_parts`."""
    assert overridden() == OVERRIDDEN
    assert read() == {name: set(names) for name, names in READ.items()}
    assert sum(map(len, OVERRIDDEN.values())) > 30


def test_the_installed_version_has_all_of_them() -> None:
    assert list(missing_parts()) == []
    check_library(may_be_unknown=True)


def test_the_cap_is_the_last_known_version() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    (requirement,) = [one for one in project["dependencies"] if one.startswith("asyncssh")]
    major, minor = KNOWN[-1].split(".")
    assert requirement == f"asyncssh>={KNOWN[0]},<{major}.{int(minor) + 1}"


@pytest.mark.parametrize("version", ["2.25.0", "2.23.9", "3.0.0", "2.240.1"])
def test_another_minor_version_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Unless the settings say that it may be unknown."""
    monkeypatch.setattr(asyncssh, "__version__", version)
    with pytest.raises(ConfigError) as caught:
        check_library()
    assert caught.value.code == "ssh.unknown-asyncssh"
    assert version in caught.value.message
    assert f"pip install 'asyncssh=={KNOWN[-1]}.*'" in caught.value.hint
    check_library(may_be_unknown=True)


@pytest.mark.parametrize("version", [f"{KNOWN[-1]}.0", f"{KNOWN[-1]}.99"])
def test_a_known_minor_version_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(asyncssh, "__version__", version)
    check_library()


def _renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncssh.connection.SSHConnection, "_recv_data")


def _changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: object, data: bytes, kind: object, more: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncssh.channel.SSHChannel, "_accept_data", other)


def _attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in asyncssh.channel.SSHServerChannel.__mro__:
        for name, what in list(vars(one).items()):
            if "_recv_window" in getattr(getattr(what, "__code__", None), "co_names", ()):
                monkeypatch.setattr(one, name, lambda *_args, **_named: None)


CHANGES = [
    (_renamed, "SSHConnection._recv_data is gone"),
    (_changed, "SSHChannel._accept_data takes self, data, kind, more"),
    (_attribute, "._recv_window is gone"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_part_that_is_not_as_it_was_is_named(monkeypatch: pytest.MonkeyPatch, change, said: str) -> None:
    """Also in a version that is known, as a distribution may have patched it, and where an unknown one may serve."""
    change(monkeypatch)
    assert any(said in one for one in missing_parts())
    with pytest.raises(ConfigError) as caught:
        check_library(may_be_unknown=True)
    assert caught.value.code == "ssh.changed-asyncssh"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_is_begun_before_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: str) -> None:
    """No journal, no port, no worker."""
    names = {f"DEVGW_{name.upper()}_DIR": str(tmp_path / name) for name in ("config", "state", "run", "cache")}
    monkeypatch.setattr(asyncssh, "__version__", "2.99.0")
    with pytest.raises(ConfigError, match=r"asyncssh 2\.99\.0 is installed"):
        run(App(load_settings(names | {"DEVGW_SERVER_PORT": "0", "DEVGW_SERVER_WORKERS": workers})))
    assert list(tmp_path.iterdir()) == []
