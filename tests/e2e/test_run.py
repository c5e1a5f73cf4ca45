"""`devgw run` and `devgw logs`: a real devgw-run in a real environment, from the administrator's host."""

import signal
import subprocess
import sys

import pytest

from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.engine

WRAPPED = ("--", "--wrap", "--", "python3", "-u", "-c")


def records(gateway: GatewayProcess, code: str) -> list[Record]:
    return [record for record in stream(gateway.root / "state" / "journal", Filter()) if record.code == code]


def test_output_input_and_exit_code_pass_through(gateway: GatewayProcess) -> None:
    """Both streams and stdin are the program's, 7 is its exit code, and the journal knows who had it run."""
    script = "import sys; print(sys.stdin.read().upper()); print('oh no', file=sys.stderr); sys.exit(7)"
    done = gateway.devgw("run", "alice", *WRAPPED, script, stdin="spoken\n", expect=7)
    assert "SPOKEN" in done.stdout
    assert "oh no" in done.stdout + done.stderr


def test_a_detached_job_goes_on_and_its_log_can_be_followed(gateway: GatewayProcess) -> None:
    """The id is all there is on stdout; logs -f ends with the job and has its last line."""
    gateway.ssh("bob", "cat >job.py", stdin=b"print('first', flush=True)\nimport time\ntime.sleep(1)\nprint('last')\n")
    job = gateway.devgw("run", "bob", "--detach", "--", "--wrap", "--", "python3", "job.py").stdout.strip()
    assert "\n" not in job
    followed = gateway.devgw("logs", "bob", job, "-f").stdout
    assert "first" in followed
    assert "last" in followed
    assert "last" in gateway.devgw("logs", "bob").stdout


def test_ctrl_c_goes_to_the_job(gateway: GatewayProcess) -> None:
    """The program ends as it chooses to, and its exit code is still the command's."""
    script = "import os, signal, time; signal.signal(2, lambda *_: os._exit(33)); print('up'); time.sleep(600)"
    command = [sys.executable, "-m", "gateway", "run", "alice", *WRAPPED, script]
    running = subprocess.Popen(command, env=gateway.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert running.stdout is not None
    with running.stdout:
        poll(lambda: b"up" in running.stdout.readline(), "its first line")
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 33


def test_a_stopped_environment_is_started_first_and_only_to_run(gateway: GatewayProcess) -> None:
    """A line on stderr says so; to read a log nothing is started, which is a failure of ours: 125."""
    gateway.devgw("stop", "bob")
    assert "'devgw start bob' first" in gateway.devgw("logs", "bob", expect=125).stderr
    done = gateway.devgw("run", "bob", "--", "--version")
    assert done.stdout.startswith("devgw-run ")
    assert "bob does not run: starting it" in done.stderr


def test_who_had_what_run_stands_in_the_journal(gateway: GatewayProcess) -> None:
    """The decision, the command and its exit code, under the administrator's name."""
    gateway.devgw("run", "alice", "--", "--version")
    opened, closed = records(gateway, "session.opened")[-1], records(gateway, "session.closed")[-1]
    assert (opened.actor["kind"], opened.environment) == ("admin", "alice")
    assert opened.detail["command"] == "devgw-run --version"
    assert closed.detail["exit_code"] == 0
    assert records(gateway, "session.allowed")[-1].actor["kind"] == "admin"


def test_an_environment_that_is_not_there_is_4(gateway: GatewayProcess) -> None:
    """Nothing is decided and nothing run."""
    assert gateway.devgw("run", "carol", "--", "train.py", expect=4).stdout == ""
    gateway.devgw("logs", "carol", expect=4)
