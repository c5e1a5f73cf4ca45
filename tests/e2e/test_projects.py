"""A project's devcontainer.json in an environment of a real engine, as its user meets it over SSH."""

from collections.abc import Iterator

import pytest

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine

FILE = """// as a template ships it
{
    "image": "mcr.microsoft.com/devcontainers/base", /* an administrator's affair */
    "privileged": true, "mounts": ["source=/,target=/host,type=bind"], "runArgs": ["--network=host"],
    "features": { "ghcr.io/devcontainers/features/git:1": {}, "ghcr.io/devcontainers/features/docker-in-docker:2": {} },
    "remoteEnv": { "GREETING": "hello ${containerWorkspaceFolderBasename}", "LD_PRELOAD": "/workspace/evil.so" },
    "postCreateCommand": { "who": "id -u >who; echo $GREETING >>who", "fails": ["sh", "-c", "echo broken; exit 3"] },
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), engine_variables())
    try:
        gateway.devgw("init")
        gateway.create("alice")
        gateway.serve()
        yield gateway
    finally:
        gateway.close()


def inside(gateway: GatewayProcess, script: str, expect: int = 0) -> str:
    """Run a script in alice's environment; return both its outputs."""
    done = gateway.ssh("alice", f"exec 2>&1\n{script}")
    assert done.returncode == expect, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def await_status(gateway: GatewayProcess, said: str) -> str:
    """Return what `devgw-project` says as soon as it says this."""

    def look() -> str:
        text = inside(gateway, "devgw-project")
        return text if said in text else ""

    return str(poll(look, f"'{said}' in what devgw-project says", 90))


def test_a_project_is_carried_out_where_its_environment_starts(served: GatewayProcess) -> None:
    """Its commands as the user, with its variables; what is beyond a user's rights is left out and said."""
    inside(served, f"cat >/workspace/.devcontainer.json <<'END'\n{FILE}END")
    served.devgw("restart", "alice")
    said = await_status(served, ": failed:")
    assert "postCreateCommand 'fails' ended with exit status 3" in said
    assert "mounts, privileged, runArgs (the policy decides); image (the image is chosen by" in said
    assert "LD_PRELOAD (kept as it is)" in said
    assert "features that this image lacks: docker-in-docker" in said
