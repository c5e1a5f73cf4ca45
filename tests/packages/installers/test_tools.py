"""The wheel as uv and pipx install it: at the versions of the lock, whole, and for every account of the host."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.version import VERSION
from tests.packages.installers.package_index import make_venv, uv_variables
from tests.support.gateway_process import poll
from tests.support.host_resources import free_port
from tests.support.processes import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EXTRAS = "kubernetes,postgresql,timestamps"
_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
_VERSIONS = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


@dataclass
class Installed:
    """devgw as a tool put it in place, with a site of its own."""

    place: Path
    python: Path

    @property
    def devgw(self) -> str:
        return str(self.place / "bin/devgw")

    @property
    def variables(self) -> dict[str, str]:
        """Return nothing of the checkout's, nor of a Python that is first on this machine's PATH."""
        site = {
            f"DEVGW_{name}_DIR": str(self.place / "site" / name.lower()) for name in ("CONFIG", "STATE", "RUN", "CACHE")
        }
        return site | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEVGW_ENGINE_KIND": "bubblewrap"}

    def run(self, *command: str, check: bool = True, **more: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command, env=self.variables | more, capture_output=True, text=True, check=False, timeout=120, cwd="/"
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where uv and pipx lie, in a virtual environment that is thrown away."""
    return make_venv(tmp_path_factory.mktemp("tools") / "venv", "uv", "pipx")


@pytest.fixture(scope="module", params=["uv", "pipx"])
def installed(request: pytest.FixtureRequest, tools: Path, wheel: tuple[Path, Path]) -> Iterator[Installed]:
    """Install it as docs/howto/install-devgw.md says, where all may read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        place = Path(made)
        place.chmod(0o755)
        command, variables, python = _install(request.param, tools, wheel, place)
        done = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=900, umask=0o022
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Installed(place, python)


def _install(tool: str, tools: Path, wheel: tuple[Path, Path], place: Path) -> tuple[list[str], dict[str, str], Path]:
    file, constraints = wheel
    asked = ["--python", "/usr/bin/python3", f"{file}[{EXTRAS}]"]
    if tool == "uv":
        variables = {
            "UV_TOOL_DIR": str(place),
            "UV_TOOL_BIN_DIR": str(place / "bin"),
            "UV_CACHE_DIR": str(place / "cache"),
        }
        command = [str(tools / "uv"), "tool", "install", "--constraints", str(constraints), *asked]
        return command, uv_variables() | variables, place / "devgw/bin/python"
    variables = {
        "PIPX_HOME": str(place / "pipx"),
        "PIPX_BIN_DIR": str(place / "bin"),
        "PIPX_MAN_DIR": str(place / "man"),
    }
    command = [str(tools / "pipx"), "install", f"--pip-args=--constraint={constraints}", *asked]
    return command, variables, place / "pipx/venvs/devgw/bin/python"


def test_every_version_is_the_locks(installed: Installed, wheel: tuple[Path, Path]) -> None:
    """Those of the extras too, and nothing came along that the lock does not know."""
    lines = wheel[1].read_text().splitlines()
    locked = {name: version for name, _, version in (line.partition("==") for line in lines)}
    found = json.loads(installed.run(str(installed.python), "-c", _VERSIONS).stdout)
    named = {name.lower().replace("_", "-").replace(".", "-"): version for name, version in found.items()}
    assert named.pop("devgw") == VERSION
    for own in ("pip", "setuptools"):
        named.pop(own, None)
    assert {"kubernetes-asyncio", "psycopg", "psycopg-binary", "rfc3161-client", "asyncssh"} <= named.keys()
    assert named.items() <= locked.items()


def test_it_runs_for_every_account(installed: Installed) -> None:
    """It stands on the system's Python: one that lies in root's home would be nobody else's."""
    assert installed.run(installed.devgw, "--version").stdout == f"devgw {VERSION}\n"
    assert installed.run(*_NOBODY, installed.devgw, "--version").stdout == f"devgw {VERSION}\n"
    assert "Environments" in installed.run(*_NOBODY, installed.devgw, "--help").stdout


def test_a_gateway_of_it_is_whole(installed: Installed) -> None:
    """Tables are made, the shipped policies load, it serves, and doctor finds all of the site well."""
    code = "import policies; print(policies.__path__[0])"
    shipped = Path(installed.run(str(installed.python), "-c", code).stdout.strip())
    files = [shipped / "default.toml", *sorted((shipped / "examples").glob("*.toml"))]
    assert len(files) == 4
    for file in files:
        installed.run(installed.devgw, "policy", "check", str(file))
    port = str(free_port())
    installed.run(installed.devgw, "init", DEVGW_SERVER_PORT=port)
    variables = installed.variables | {"DEVGW_SERVER_PORT": port, "DEVGW_SERVER_LISTEN_ADDRESS": "127.0.0.1"}
    log = installed.place / "log"
    with (
        log.open("w") as output,
        running([installed.devgw, "serve"], env=variables, stdout=output, stderr=output, cwd="/"),
    ):
        poll(lambda: "devgw_" in installed.run(installed.devgw, "metrics", check=False).stdout, "a gateway that serves")
        told = installed.run(installed.devgw, "doctor", "-o", "json", check=False, DEVGW_SERVER_PORT=port)
    findings = {one["check"]: one for one in json.loads(told.stdout)["findings"]}
    site = {check: one["level"] for check, one in findings.items() if check.startswith("site.")}
    assert len(site) > 8
    assert set(site.values()) == {"ok"}, log.read_text() + str(findings)
    assert "a gateway answers" in findings["site.port"]["message"]
    assert findings["engine.answers"]["message"].startswith("bubblewrap")
