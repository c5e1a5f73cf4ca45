"""Environments through the command line and through crashes, on a real engine: invariants 11 and 13."""

import signal
import subprocess

import pytest

from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine
INIT_START = "cut -d' ' -f22 /proc/1/stat"


def test_an_environment_outlives_the_servers_kill(gateway: GatewayProcess):
    """Kill -9 of `devgw serve`, a new one, and alice's environment never stopped."""
    before = gateway.ssh("alice", INIT_START).stdout
    gateway.stop(signal.SIGKILL)
    gateway.serve()
    assert before
    assert gateway.ssh("alice", INIT_START).stdout == before
    assert gateway.devgw_json("show", "alice")["environment"]["state"] == "running"


def test_a_stopped_environment_wakes_on_connect_and_says_so(gateway: GatewayProcess):
    """stop, then ssh: a line on stderr, nothing on stdout but the command's, and the files are still there."""
    gateway.ssh("bob", "echo kept >~/note")
    gateway.devgw("stop", "bob")
    done = gateway.ssh("bob", "cat ~/note")
    assert (done.returncode, done.stdout) == (0, b"kept\n"), done.stderr
    assert b"starting your environment" in done.stderr


def test_stop_gives_the_gpu_back_and_start_takes_one_again(fresh_gateway: GatewayProcess, gpus: tuple[str, ...]):
    """A GPU is held while its environment runs, by one environment at a time."""
    gateway = fresh_gateway
    gateway.create("alice", "--gpu", "1")
    first = gateway.devgw_json("show", "alice")["environment"]["gpus"]
    gateway.create("bob", "--gpu", "1")
    second = gateway.devgw_json("show", "bob")["environment"]["gpus"]
    assert len({*first, *second}) == 2
    gateway.devgw("stop", "alice")
    assert gateway.devgw_json("show", "alice")["environment"]["gpus"] == []
    gateway.devgw("start", "alice")
    again = gateway.devgw_json("show", "alice")["environment"]["gpus"]
    assert len({*again, *second}) == 2


def test_delete_keeps_the_files_and_purge_does_not(fresh_gateway: GatewayProcess):
    """`delete` then `create` finds the home again; `--purge` is for good."""
    gateway = fresh_gateway
    gateway.create("alice")
    gateway.serve()
    gateway.ssh("alice", "echo kept >~/note")
    gateway.devgw("delete", "alice", "--yes", expect=6)
    gateway.devgw("delete", "alice", "--yes", "--force")
    gateway.create("alice")
    assert gateway.ssh("alice", "cat ~/note").stdout == b"kept\n"
    gateway.devgw("delete", "alice", "--yes", "--force", "--purge")
    gateway.create("alice")
    assert gateway.ssh("alice", "ls ~/note").returncode != 0


def test_a_create_that_was_killed_leaves_nothing_that_stays(fresh_gateway: GatewayProcess):
    """Kill -9 of `devgw create` half-way; the next create clears it up and the GPU ledger is clean."""
    gateway = fresh_gateway
    key = gateway.make_key("alice")
    command = ["python", "-m", "gateway", "create", "alice", "--gpu", "1", "--key", f"{key}.pub"]
    import sys

    half = subprocess.Popen([sys.executable, *command[1:]], env=gateway.environ, stdout=-1, stderr=-1)
    poll(lambda: gateway.devgw_json("list")["environments"], "the half-made environment")
    half.kill()
    half.communicate(timeout=60)
    gateway.create("alice", "--gpu", "1")
    assert gateway.devgw_json("show", "alice")["environment"]["state"] == "running"


def test_two_environments_of_one_user(fresh_gateway: GatewayProcess):
    """`alice+proj@gateway` is another environment of the same person, with its own home."""
    gateway = fresh_gateway
    gateway.create("alice")
    refused = gateway.devgw("create", "alice+proj", expect=None)
    if refused.returncode == 0:
        gateway.serve()
        gateway.ssh("alice+proj", "echo here >~/where")
        assert gateway.ssh("alice", "cat ~/where").returncode != 0
    else:
        assert refused.returncode == 5
