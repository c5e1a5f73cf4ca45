"""The doctor looks inside: with a certificate of the gateway's own, through a real sshd."""

import json
from collections.abc import Iterator

import pytest

from gateway.auth.authority import Authority
from gateway.errors import EngineError
from gateway.model import EnvironmentRef
from gateway.ssh.upstream.captured_exec import Completed, run_captured
from gateway.ssh.upstream.environment_login import Door
from tests.support.gateway_process import GatewayProcess
from tests.support.ssh_environment import SshEnvironment

ALICE = EnvironmentRef.parse("alice")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("keys"))
    made.ensure()
    return made


@pytest.fixture(scope="module")
def environment(authority: Authority) -> Iterator[SshEnvironment]:
    made = SshEnvironment("alice", authority.user_ca_line())
    made.start()
    yield made
    made.remove()


def run(environment: SshEnvironment, authority: Authority, *command: str, host_key: str = "") -> Completed:
    key = host_key or environment.host_key
    return run_captured(environment.dial("ssh"), Door(ALICE, key, authority.user_ca_key), command, 30)


def test_a_command_runs_as_the_user_and_its_exit_code_and_both_streams_come_back(
    environment: SshEnvironment, authority: Authority
) -> None:
    done = run(environment, authority, "sh", "-c", "id -u; echo 'oh no' >&2; exit 7")
    assert done == Completed(7, f"{environment.uid}\n", "oh no\n")


def test_arguments_arrive_as_they_are(environment: SshEnvironment, authority: Authority) -> None:
    """Nothing is expanded on the way."""
    awkward = "a b; $HOME 'c' \"d\" *"
    assert run(environment, authority, "printf", "%s", awkward).stdout == awkward


def test_an_absent_command_is_127(environment: SshEnvironment, authority: Authority) -> None:
    assert run(environment, authority, "devgw-run-that-is-not-there").exit_code == 127


def test_output_without_end_is_cut(environment: SshEnvironment, authority: Authority) -> None:
    """An environment cannot fill the gateway's memory (invariant 10)."""
    assert len(run(environment, authority, "cat", "/dev/zero").stdout) == 2**20


def test_an_environment_with_another_host_key_is_not_asked(environment: SshEnvironment, authority: Authority) -> None:
    """The pinned key counts, not what answers."""
    with pytest.raises(EngineError) as refused:
        run(environment, authority, "true", host_key=authority.host_key_line())
    assert refused.value.code == "environment.unreachable"


def test_a_command_that_does_not_end_is_given_up(environment: SshEnvironment, authority: Authority) -> None:
    door = Door(ALICE, environment.host_key, authority.user_ca_key)
    with pytest.raises(EngineError, match="within 1 s"):
        run_captured(environment.dial("ssh"), door, ("sleep", "600"), 1)


@pytest.mark.engine
def test_doctor_of_an_environment_on_a_real_engine(gateway: GatewayProcess) -> None:
    """Host, engine, image and the runner's own checks from inside, in one report; the site is sound."""
    done = gateway.devgw("doctor", "alice", "-o", "json", expect=None)
    report = json.loads(done.stdout)
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    sound = ("site.state", "site.permissions", "site.keys", "site.database", "site.journal", "site.policy", "site.port")
    assert {levels[check] for check in (*sound, "engine.answers", "image.contract", "inside.torch")} == {"ok"}
    assert (report["version"], report["environment"]) == (1, "alice")
    assert done.returncode == (2 if report["counts"]["failure"] else 1 if not report["ok"] else 0)
    assert all(finding["fix"] for finding in report["findings"] if finding["level"] != "ok")


@pytest.mark.engine
def test_doctor_changes_nothing(fresh_gateway: GatewayProcess) -> None:
    """Not even a database is made by asking."""
    before = sorted(
        path for path in fresh_gateway.root.rglob("*") if "-shm" not in path.name and "-wal" not in path.name
    )
    fresh_gateway.devgw("doctor", expect=None)
    after = sorted(
        path for path in fresh_gateway.root.rglob("*") if "-shm" not in path.name and "-wal" not in path.name
    )
    assert after == before
