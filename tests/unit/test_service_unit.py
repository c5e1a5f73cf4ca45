"""The unit that is shipped, and the page about it: they name the same things, and the times fit the settings."""

import configparser
import re
import tomllib
from pathlib import Path

import pytest

from gateway.config import SshSettings

_ROOT = Path(__file__).parents[2]
_UNIT = _ROOT / "gateway" / "systemd" / "devgw.service"
_PAGE = (_ROOT / "docs" / "howto" / "run-as-a-service.md").read_text()
_IN_A_DROP_IN = {"ReadWritePaths", "Delegate"}


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """Directives of [Service]; one that is given twice has two values, as for systemd."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive here
    parser.read_string(_UNIT.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
    text = _UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    assert set(found) == set(parser["Service"])
    return found


def test_every_directive_that_the_page_names_is_in_the_unit(service: dict[str, list[str]]) -> None:
    """With the value where the page gives one, but for what it tells to put into a drop-in."""
    named = re.findall(r"`([A-Z]\w+)=([\w.-]*)`", _PAGE)
    assert len(named) > 15
    for name, value in named:
        if name in _IN_A_DROP_IN or value == "notify-reload" or name.isupper() or "_" in name:
            continue
        assert name in service, name
        assert not value or value in service[name], f"{name}={value}"


def test_environments_and_their_sessions_outlive_what_systemd_does(service: dict[str, list[str]]) -> None:
    """A restart ends the gateway alone, and a drain has its time before SIGKILL."""
    assert service["KillMode"] == ["process"]
    assert service["RuntimeDirectoryPreserve"] == ["yes"]
    assert int(service["TimeoutStopSec"][0].removesuffix("s")) > SshSettings().drain_seconds


def test_nothing_is_set_that_a_sandbox_would_inherit_and_die_of(service: dict[str, list[str]]) -> None:
    """Bubblewrap needs namespaces and a whole /proc, torch.compile writes code, GPUs are devices."""
    deadly = {
        "RestrictNamespaces", "PrivateUsers", "ProtectProc", "ProcSubset", "ProtectKernelTunables", "ProtectKernelLogs",
        "ProtectControlGroups", "ProtectHostname", "ProtectClock", "PrivateDevices", "DevicePolicy", "DeviceAllow",
        "MemoryDenyWriteExecute",
    }  # fmt: skip
    assert deadly.isdisjoint(service)


def test_the_unit_is_part_of_the_package() -> None:
    """An installed devgw brings it along."""
    data = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["gateway"]
    assert any(_UNIT.match(f"gateway/{pattern}") for pattern in data)
