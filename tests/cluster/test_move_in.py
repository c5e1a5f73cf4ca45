"""The walk of docs/howto/from-one-host-to-a-cluster.md: alice, from a gateway with Docker to one before the cluster."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import until_healed
from tests.cluster.environments import NODES, cluster_variables, objects
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.notebook_client import NotebookClient
from tests.support.processes import running
from tests.support.ssh_login import administrator_login
from tests.support.two_gateways import TwoGateways

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]
_TO = ("--to", "root@127.0.0.1")
_WORK = """set -e; echo 'chapter 1' >~/thesis; ln -s thesis ~/link; chmod 640 ~/thesis; mkdir -p ~/a/b
echo deep >~/a/b/c; head -c 3000000 /dev/urandom >/checkpoints/last; echo begun >/logs/first
cat >/workspace/x; echo soon >/workspace/gone"""
_LOOK = """cat ~/link; stat -c %a:%U ~/thesis; cat ~/a/b/c; sha256sum </checkpoints/last; cat /workspace/x /logs/first
ls /workspace; id -un"""


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[TwoGateways]:
    source = GatewayProcess(tmp_path / "source", engine_variables("docker"))
    target = GatewayProcess(tmp_path / "target", cluster_variables())
    for gateway in (source, target):
        gateway.root.mkdir()
    try:
        with administrator_login(tmp_path / "ssh") as login:
            for gateway in (source, target):
                gateway.devgw("init")
            (target.root / "keys").symlink_to(source.root / "keys")
            source.serve()
            target.serve()
            both = TwoGateways(source, target, login)
            yield both
            both.move("--abort")  # where a test failed on its way; otherwise there is nothing to put back
    finally:
        source.close()
        target.close()


def test_alice_moves_from_a_host_to_the_cluster(gateways: TwoGateways) -> None:
    """With home, keys, password and use of GPUs; a move that was killed while her files went over goes on."""
    source, target = gateways.source, gateways.target
    password = source.create("alice", "--gpu", "1")
    until_healed(source)  # so that nothing but the move ends her session
    assert source.ssh("alice", _WORK, stdin=b"x\n").returncode == 0
    digest = source.ssh("alice", "sha256sum </checkpoints/last").stdout
    keys, used = keys_of(source), gpu_use(source)
    assert len(used) == 1

    checked = gateways.move(*_TO, "--check")
    assert checked.returncode == 0, checked.stderr
    assert gateways.doors() == {"source": None, "target": "nobody"}
    assert objects() == set()

    with running(gateways.command(*_TO), env=gateways.variables()) as killed:
        poll(lambda: objects("pods"), "her environment on the cluster, which takes files", 90)
        killed.kill()
        killed.wait(timeout=60)
    assert source.ssh("alice", "rm /workspace/gone; echo more >>/workspace/x").returncode == 0
    assert "not here yet" in str(gateways.doors()["target"])
    with running(source.ssh_command("alice", "sleep 1000"), stderr=subprocess.PIPE) as session:
        done = gateways.move(*_TO, "--reason", "to the cluster")
        assert done.returncode == 0, done.stderr
        said = session.communicate(timeout=60)[1]
    assert b"moved to 127.0.0.1" in said, said
    assert objects("pods") == set(), "the pod that took her files has ended"

    woken = target.ssh("alice", "true")
    assert woken.returncode == 0, woken.stderr
    until_healed(target)
    looked = target.ssh("alice", _LOOK).stdout
    assert looked == b"chapter 1\n640:alice\ndeep\n" + digest + b"x\nmore\nbegun\nx\nalice\n"
    environment = target.devgw_json("show", "alice")["environment"]
    assert environment["node"] in NODES
    assert len(environment["gpus"]) == 1
    assert keys_of(target) == keys
    assert set(used) < set(gpu_use(target)), "her use of the old host's GPU is on record, and that of the new one"
    with target.tunnel("alice") as port:
        browser = NotebookClient(f"http://localhost:{port}")
        browser.login(password)
        assert browser.execute("print(open('/home/alice/thesis').read())").strip() == "chapter 1"
    job = target.devgw("run", "alice", "--", "--wrap", "--", "python3", "-c", "print(6 * 7)")
    assert "42" in job.stdout
    assert [user["closed_because"] for user in source.devgw_json("user", "list")["users"]] == [
        gateways.doors()["source"]
    ]
    refused = source.ssh("alice", "-v", "true")
    assert f"ssh -p {target.port}".encode() in refused.stderr
    journals_tell(gateways)


def keys_of(gateway: GatewayProcess) -> list[Any]:
    """Return alice's keys, but for when they were used last."""
    return [one["fingerprint"] for one in gateway.devgw_json("key", "list", "alice")["keys"]]


def gpu_use(gateway: GatewayProcess) -> list[str]:
    """Return the GPUs of which use is on record."""
    return [one["key"] for one in gateway.devgw_json("usage", "--by", "gpu")["usage"]]


def journals_tell(gateways: TwoGateways) -> None:
    """Both have it from beginning to end, under one id, and their chains are whole."""
    ids = set()
    for gateway in (gateways.source, gateways.target):
        gateway.devgw("audit", "verify")
        lines = gateway.devgw("audit", "log", "--action", "move", "-o", "json").stdout.splitlines()
        records = [json.loads(line) for line in lines]
        assert {"move.begun", "move.completed"} <= {one["code"] for one in records}
        ids |= {one["detail"]["move"] for one in records}
    assert len(ids) == 1
