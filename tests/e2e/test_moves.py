"""A user moves between two real gateways: a real sshd and rsync between them, real environments on both."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.processes import running
from tests.support.ssh_login import administrator_login
from tests.support.two_gateways import TwoGateways

pytestmark = pytest.mark.engine
_MOST_TRIES = 60
_WORK = """set -e; echo 'chapter 1' >~/thesis; ln -s thesis ~/link; chmod 640 ~/thesis
head -c 3000000 /dev/urandom >/checkpoints/last; cat >/workspace/x"""
_LOOK = "cat ~/link; stat -c %a:%U ~/thesis; sha256sum </checkpoints/last; cat /workspace/x; id -un"
_STEPS_OF_SOURCE = ["begun", "announced", "reserved", "copied", "closed", "stopped", "filled", "moved", "done"]
_STEPS_OF_TARGET = ["held", "reserved", "placed", "arrived"]


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[TwoGateways]:
    source, target = (GatewayProcess(tmp_path / name, engine_variables()) for name in ("source", "target"))
    for gateway in (source, target):
        gateway.root.mkdir()
    try:
        with administrator_login(tmp_path / "ssh") as login:
            for gateway in (source, target):
                gateway.devgw("init")
            source.create("alice")
            (target.root / "keys").symlink_to(source.root / "keys")
            source.serve()
            target.serve()
            assert source.ssh("alice", _WORK, stdin=b"x").returncode == 0
            yield TwoGateways(source, target, login)
    finally:
        source.close()
        target.close()


def require_moved(gateways: TwoGateways, password_hash: bytes, checkpoint: bytes) -> None:
    """She works on the target with what she had; the source says where she is."""
    source, target = gateways.source, gateways.target
    done = target.ssh("alice", _LOOK)
    assert done.stdout.split(b"\n")[:2] == [b"chapter 1", b"640:alice"], done.stderr
    assert checkpoint in done.stdout
    assert done.stdout.endswith(b"xalice\n")
    found = target.root / "state/environments/alice/main/config/notebook_password"
    assert found.read_bytes() == password_hash
    refused = source.ssh("alice", "-v", "true")  # the clients of tests are quiet, and hide what a server tells
    assert refused.returncode == 255
    assert f"ssh -p {target.port}".encode() in refused.stderr, refused.stderr
    assert source.devgw_json("list")["environments"] == []
    ids = set()
    for gateway in (source, target):
        assert gateway.devgw("audit", "verify").returncode == 0
        lines = gateway.devgw("audit", "log", "--action", "move", "-o", "json").stdout.splitlines()
        records = [json.loads(line) for line in lines]
        assert {"move.begun", "move.completed"} <= {one["code"] for one in records}
        ids |= {one["detail"]["move"] for one in records}
    assert len(ids) == 1


def known(gateways: TwoGateways) -> tuple[bytes, bytes]:
    """Return what must be the same afterwards: the password's hash, and a file's."""
    config = gateways.source.root / "state/environments/alice/main/config"
    digest = gateways.source.ssh("alice", "sha256sum </checkpoints/last").stdout.split()[0]
    return (config / "notebook_password").read_bytes(), digest


def test_a_user_moves_and_works_on_there(gateways: TwoGateways) -> None:
    """While she is connected: she is told why it ends, and where she goes."""
    before = known(gateways)
    checked = gateways.move("--to", "root@127.0.0.1", "--check")
    assert checked.returncode == 0, checked.stderr
    assert gateways.doors() == {"source": None, "target": "nobody"}
    command = gateways.source.ssh_command("alice", "sleep 1000")
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as session:
        done = gateways.move("--to", "root@127.0.0.1", "--reason", "gpu1 is retired")
        said = session.communicate(timeout=60)[1]
    assert done.returncode == 0, done.stderr
    assert b"moved to 127.0.0.1" in said, said
    require_moved(gateways, *before)


def test_a_move_that_is_killed_at_each_step_of_both_hosts_is_finished(gateways: TwoGateways, tmp_path: Path) -> None:
    """By SIGKILL, before each step is durable and after it; at no time she is let in on both."""
    before = known(gateways)
    gateways.program = "tests.support.dying_devgw"
    gateways.marks = {side: tmp_path / f"marks-{side}" for side in ("source", "target")}
    for marks in gateways.marks.values():
        marks.mkdir()
    done = gateways.move("--to", "root@127.0.0.1")
    tries = 1
    while done.returncode and tries < _MOST_TRIES:
        doors = gateways.doors()
        assert doors["source"] is not None or doors["target"] is not None, "she is let in on both hosts"
        done = gateways.move("--to", "root@127.0.0.1")
        tries += 1
    assert done.returncode == 0, done.stderr
    died = {side: {path.name for path in marks.iterdir()} for side, marks in gateways.marks.items()}
    for side, steps in (("source", _STEPS_OF_SOURCE), ("target", _STEPS_OF_TARGET)):
        assert died[side] == {f"{moment}-{step}" for moment in ("before", "after") for step in steps}
    assert tries >= 2 * len(_STEPS_OF_TARGET)
    require_moved(gateways, *before)


def test_a_move_that_is_put_back_lets_the_user_work_on(gateways: TwoGateways, tmp_path: Path) -> None:
    """Killed when the door was shut; her environment runs again, and the target has nothing of her."""
    gateways.program = "tests.support.dying_devgw"
    gateways.marks = {side: tmp_path / f"marks-{side}" for side in ("source", "target")}
    for side, steps in (("source", [*_STEPS_OF_SOURCE, "aborting", "aborted"]), ("target", _STEPS_OF_TARGET)):
        gateways.marks[side].mkdir()
        for step in steps:
            for moment in ("before", "after"):
                if (side, step, moment) != ("source", "stopped", "after"):
                    (gateways.marks[side] / f"{moment}-{step}").touch()
    assert gateways.move("--to", "root@127.0.0.1").returncode == -9
    doors = gateways.doors()
    assert "you are being moved to 127.0.0.1" in str(doors["source"])
    assert gateways.source.ssh("alice", "true").returncode == 255
    codes = [gateways.move("--abort").returncode for _try in range(10)]
    assert 0 in codes, codes
    assert codes[-1] == 4, "there is nothing to put back any more"
    assert gateways.doors() == {"source": None, "target": "nobody"}
    done = poll(lambda: _works(gateways.source), "alice's login", 60)
    assert done.stdout == b"chapter 1\n"
    assert not (gateways.target.root / "state/volumes/alice").exists()


def _works(gateway: GatewayProcess) -> "subprocess.CompletedProcess[bytes] | None":
    done = gateway.ssh("alice", "cat ~/thesis")
    return done if done.returncode == 0 else None


def test_a_stranger_to_ssh_is_one_line(gateways: TwoGateways) -> None:
    """A key that is not let in, a host whose key is another one, a name that is none; nothing has begun."""
    login = gateways.login
    cases = {
        "Permission denied": login.ssh(key="stranger"),
        "Host key verification failed": login.ssh(known_hosts="false_hosts"),
    }
    for said, ssh in cases.items():
        done = gateways.move("--to", "root@127.0.0.1", ssh=ssh)
        lines = [line for line in done.stderr.splitlines() if line.startswith("devgw: error:")]
        assert (done.returncode, len(lines), said in lines[0]) == (1, 1, True), done.stderr
        assert "devgw: hint:" in done.stderr
    assert gateways.move("--to", "-oProxyCommand=id").returncode == 2
    assert gateways.doors() == {"source": None, "target": "nobody"}
