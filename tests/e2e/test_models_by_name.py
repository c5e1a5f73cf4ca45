"""A researcher on a closed site: packages and a model by name only, with the tools that they would use.

Hugging Face's own client is installed from the index that the shipped role names, and asks the hub that it names.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.host_resources import turn
from tests.support.hosts_outside import PYPI, HostsOutside, hosts_outside
from tests.support.serve_outside import HUB, MODEL, STORE

pytestmark = pytest.mark.engine

_CLIENT = "huggingface_hub==2.4.0"
_SHIPPED = Path(__file__).parents[2] / "policies" / "default.toml"
_FILES = {
    "config.json": b'{"model_type": "tiny"}\n',
    "model.safetensors": hashlib.shake_256(b"weights").digest(3 << 20),
}
_GRANT = 'default_roles = ["member", "packages"]'


def _wheels() -> list[Path]:
    """Return the client and all that it needs, downloaded once into the tests' cache."""
    cache = Path(os.environ.get("DEVGW_CACHE") or Path.home() / ".cache" / "devgw") / "model-client" / _CLIENT
    with turn("the client of the model hub"):
        if not (cache / ".complete").exists():
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--only-binary",
                ":all:",
                "-d",
                str(cache),
                _CLIENT,
            ]
            subprocess.run(command, check=True, timeout=300)
            (cache / ".complete").touch()
    return sorted(cache.glob("*.whl"))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsOutside]:
    wheels = _wheels()
    with hosts_outside(tmp_path_factory.mktemp("outside")) as hosts:
        hosts.add_wheels(wheels)
        hosts.add_model(_FILES)
        yield hosts


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, outside: HostsOutside) -> Iterator[GatewayProcess]:
    """Yield a gateway whose policy is the shipped one, with the line that stands there as a comment in force."""
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), engine_variables())
    try:
        gateway.devgw("init")
        shipped = _SHIPPED.read_text()
        assert f"# {_GRANT}\n" in shipped
        policy = shipped.replace('default_roles = ["member"]\n', "").replace(f"# {_GRANT}", _GRANT)
        (gateway.root / "etc" / "policy.toml").write_text(policy)
        gateway.launcher = outside.launcher({})
        gateway.create("alice")
        gateway.serve()
        poll(lambda: gateway.ssh("alice", "test -S /etc/devgw/env/egress.sock").returncode == 0, "a door")
        inside(gateway, f"cat >~/ca.pem <<'END'\n{outside.ca.read_text()}END")
        yield gateway
    finally:
        gateway.close()


def inside(gateway: GatewayProcess, script: str) -> str:
    """Run a script in alice's environment, as she would; return both its outputs."""
    done = gateway.ssh("alice", f"exec 2>&1\n{script}")
    text = done.stdout.decode()
    assert done.returncode == 0, text + done.stderr.decode()
    return text


def test_the_shipped_role_names_what_the_test_asks() -> None:
    """Nothing is opened for the test."""
    named = tomllib.loads(_SHIPPED.read_text())["roles"]["packages"]["egress_hosts"]
    assert {PYPI, HUB, "*.hf.co"} <= set(named)
    assert STORE.endswith(".hf.co")


def test_a_model_is_downloaded_by_name(site: GatewayProcess) -> None:
    """Installed by pip, asked by name; the weights lie behind a redirect to another name, and arrive whole."""
    inside(site, f"pip install -q --no-cache-dir --disable-pip-version-check --cert ~/ca.pem {_CLIENT}")
    inside(site, f"SSL_CERT_FILE=~/ca.pem python -m huggingface_hub.cli.hf download {MODEL} --local-dir ~/tiny")
    digests = inside(site, "cd ~/tiny && sha256sum config.json model.safetensors")
    assert digests.split()[::2] == [hashlib.sha256(_FILES[name]).hexdigest() for name in _FILES]
    closed = poll(lambda: _received(site, STORE), "the record of the weights")
    assert closed >= len(_FILES["model.safetensors"])
    assert _received(site, HUB) > 0


def _received(site: GatewayProcess, host: str) -> int:
    """Return how many bytes the journal says came from a host."""
    text = site.devgw("audit", "log", "--action", "egress-host.closed", "-o", "json").stdout
    details = [json.loads(line)["detail"] for line in text.splitlines()]
    return sum(detail["received_bytes"] for detail in details if detail["host"] == host)
