"""Bad input gets one clear line, a hint and the right exit code; nothing half-made is left (on a real engine)."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.engine
Holdings = Callable[[GatewayProcess], set[str]]


def refusal(gateway: GatewayProcess, *arguments: str, stdin: str = "") -> tuple[int, list[str]]:
    """Run a command that must fail; return its exit code and the lines on stderr, with nothing on stdout."""
    done = gateway.devgw(*arguments, stdin=stdin, expect=None)
    assert done.returncode != 0
    assert done.stdout == ""
    return done.returncode, [
        line for line in done.stderr.splitlines() if line.startswith(("devgw: error: ", "devgw: hint: "))
    ]


@pytest.mark.attack("B2", "`../alice`, upper case, root and other bad input to `create`: nothing is left")
def test_nothing_is_left_by_any_refused_create(fresh_gateway: GatewayProcess, holdings: Holdings):
    """Each refusal names its cause; afterwards there is no environment, no user, no container."""
    gateway, before = fresh_gateway, holdings(fresh_gateway)
    for arguments, code, words in (
        (("create", "Alice"), 2, "not a user name"),
        (("create", "../alice"), 2, "not a user name"),
        (("create", "root"), 2, "system account"),
        (("create", "alice", "--gpu", "-1"), 2, "GPU"),
        (("create", "alice", "--gpu", "9"), None, "GPU"),
        (("create", "alice", "--image", "no/such:image"), 4, "no/such:image"),
        (("create", "alice", "--key", "/nowhere/alice.pub"), None, "/nowhere/alice.pub"),
        (("create", "alice", "--dataset", "unknown"), None, "unknown"),
        (("show", "alice"), 4, "alice"),
    ):
        exit_code, lines = refusal(gateway, *arguments)
        assert code in {None, exit_code}, (arguments, exit_code, lines)
        assert words in lines[0], (arguments, lines)
        assert lines[0].startswith("devgw: error: ")
        assert lines[1].startswith("devgw: hint: ")
    assert gateway.devgw_json("list")["environments"] == []
    assert holdings(gateway) == before


@pytest.mark.attack("A7", "a short RSA key or a private key given to `create`")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (["-t", "rsa", "-b", "2048"], "2048"),
        (["-t", "ed25519"], "private key"),
    ],
    ids=["an RSA key of 2048 bits", "a private key given as a public one"],
)
def test_bad_keys_are_refused(fresh_gateway: GatewayProcess, tmp_path: Path, make: list[str], words: str):
    """A key that cannot be let in is refused before anything is made."""
    subprocess.run(["ssh-keygen", "-q", *make, "-N", "", "-f", str(tmp_path / "k")], check=True, timeout=60)
    file = tmp_path / ("k" if words == "private key" else "k.pub")
    code, lines = refusal(fresh_gateway, "create", "alice", "--key", str(file))
    assert code == 1
    assert words in lines[0]
    assert fresh_gateway.devgw_json("list")["environments"] == []


def test_who_is_known_and_has_no_environment_reads_whom_to_ask(fresh_gateway: GatewayProcess):
    """What an administrator can type is no help to them."""
    key = fresh_gateway.make_key("carol")
    fresh_gateway.devgw("user", "add", "carol", "--key", f"{key}.pub")
    fresh_gateway.serve()
    done = fresh_gateway.ssh("carol", "true")
    assert done.returncode != 0
    assert "devgw: no environment carol; ask an administrator for one" in done.stderr.decode()


def test_a_host_without_gpus_says_so_and_how_to_go_on(tmp_path: Path):
    """`--gpu 1` where there is none: the reason, the hint `--gpu 0`, nothing left."""
    gateway = GatewayProcess(tmp_path, engine_variables() | {"DEVGW_GPUS_INVENTORY": "none"})
    gateway.devgw("init")
    _, lines = refusal(gateway, "create", "alice", "--gpu", "1")
    assert "no GPU" in lines[0]
    assert "--gpu 0" in lines[1]
    assert gateway.devgw_json("list")["environments"] == []


def test_a_second_create_conflicts_and_harms_nothing(fresh_gateway: GatewayProcess, holdings: Holdings):
    """The first environment goes on as it was, and nothing is kept beside it."""
    fresh_gateway.create("alice")
    first = holdings(fresh_gateway)
    assert first
    code, lines = refusal(fresh_gateway, "create", "alice")
    assert (code, "exists already" in lines[0]) == (6, True)
    assert holdings(fresh_gateway) == first
    assert fresh_gateway.devgw_json("show", "alice")["environment"]["state"] == "running"


def test_an_engine_that_does_not_answer(tmp_path: Path):
    """The socket is named; reading what is known still works."""
    variables = engine_variables() | {
        "DEVGW_ENGINE_KIND": "docker",
        "DEVGW_ENGINE_DOCKER_URL": f"unix://{tmp_path}/absent.sock",
    }
    gateway = GatewayProcess(tmp_path, variables)
    gateway.devgw("init")
    code, lines = refusal(gateway, "create", "alice")
    assert (code, "absent.sock" in lines[0]) == (1, True)
    assert gateway.devgw_json("list")["environments"] == []


def test_a_full_disk_during_create_leaves_nothing(tmp_path: Path, holdings: Holdings):
    """The state directory is a file system with no room left: one line, and nothing half-made."""
    small = tmp_path / "state"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(small)], check=True, timeout=60)
    gateway = GatewayProcess(tmp_path, engine_variables())
    try:
        gateway.devgw("init")
        before = holdings(gateway)
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                filler.chmod(0o600)
        _, lines = refusal(gateway, "create", "alice-of-the-full-disk")
        assert "space" in lines[0] or "full" in lines[0], lines
        filler.unlink()
        assert gateway.devgw_json("list")["environments"] == []
        assert not (small / "environments" / "alice-of-the-full-disk").exists()
        assert holdings(gateway) == before
    finally:
        gateway.close()
        subprocess.run(["umount", "--lazy", str(small)], check=True, timeout=60)
