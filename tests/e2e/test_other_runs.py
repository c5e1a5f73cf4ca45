"""Another test run at the same time, or an account of the same name, changes nothing for the environments of tests."""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.auth.authority import Authority
from tests.support import host_resources, ssh_environment
from tests.support.processes import running
from tests.support.ssh_clients import poll
from tests.support.ssh_environment import SshEnvironment
from tests.support.ssh_gateway import TestGateway

Make = Callable[[str], SshEnvironment]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    """Make environments that end with the test."""
    authority = Authority(tmp_path)
    authority.ensure()
    with ExitStack() as cleanup:

        def make(user: str) -> SshEnvironment:
            environment = SshEnvironment(user, authority.user_ca_line())
            cleanup.callback(environment.remove)
            return environment

        yield make


def test_an_account_of_the_same_name_on_the_host_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's alice comes first in its files, is somebody else, and may not log in anywhere."""
    accounts = tmp_path / "etc"
    accounts.mkdir()
    for name, line in (("passwd", "alice:x:1000:1000::/nowhere:/usr/sbin/nologin"), ("group", "alice:x:1000:")):
        (accounts / name).write_text(f"{line}\n{Path('/etc', name).read_text()}")
    monkeypatch.setattr(ssh_environment, "ACCOUNTS", accounts)
    (tmp_path / "gateway").mkdir()
    gateway = TestGateway(tmp_path / "gateway")
    gateway.start()
    try:
        key = gateway.add_user("alice")
        [environment] = gateway.environments.by_ref.values()
        done = gateway.run("alice", key, "id -u; id -un; cd; pwd")
        assert done.stdout.decode().split() == [str(environment.uid), "alice", str(environment.home)]
    finally:
        gateway.stop()


def test_an_environment_that_ends_takes_its_own_processes_alone(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of an environment with the same uid, which another run could have."""
    monkeypatch.setattr(ssh_environment, "next_uid", lambda: 1_000_000)
    ours, theirs = made("alice"), made("alice")
    assert ours.uid == theirs.uid
    ours.start()
    theirs.start()
    ours.stop()
    theirs.dial("ssh").close()
    assert processes_below(theirs.root) != []
    assert processes_below(ours.root) == []


def test_an_environment_ends_with_the_run_that_made_it(tmp_path: Path) -> None:
    """Also where the run is killed and can clean up nothing."""
    program = """
        import sys, pathlib
        from gateway.auth.authority import Authority
        from tests.support.ssh_environment import SshEnvironment
        authority = Authority(pathlib.Path(sys.argv[1]))
        authority.ensure()
        environment = SshEnvironment("alice", authority.user_ca_line())
        environment.start()
        print(environment.root, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with running(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        root = Path(run.stdout.readline().strip())
        assert processes_below(root) != []
        run.kill()
    poll(lambda: processes_below(root) == [], "the end of the environment")


def processes_below(root: Path) -> list[str]:
    """Return the processes whose command line names a directory."""
    found = subprocess.run(["pgrep", "-f", str(root)], capture_output=True, text=True, timeout=10, check=False)
    return found.stdout.split()


def test_two_runs_are_given_different_ports_and_uids() -> None:
    """Each of many, in processes that ask at the same time."""
    program = (
        "from tests.support.host_resources import *; print(next_uid(), *(free_port() for _ in range(40)), flush=True)"
        "; input()"
    )
    with ExitStack() as cleanup:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        runs = [
            cleanup.enter_context(running([sys.executable, "-c", program], cwd=ROOT, text=True, **pipes))
            for _ in range(4)
        ]
        taken = [run.stdout.readline().split() for run in runs]
        uids, ports = [one[0] for one in taken], [port for one in taken for port in one[1:]]
    assert len(set(uids)) == 4
    assert len(set(ports)) == len(ports) == 160


def test_a_port_is_free_again_when_its_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ended: the kernel lets go of the claim."""
    monkeypatch.setattr(host_resources, "_FIRST_PORT", 9_000)
    program = "from tests.support.host_resources import *; print(free_port())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    port = f"port {int(done.stdout)}"
    assert host_resources._claim(port)
    host_resources._claims.pop(port).close()


def test_what_a_host_has_once_is_had_in_turns() -> None:
    """The second run waits for the first."""
    program = "from tests.support.host_resources import *\nwith turn('of a test'): print('mine', flush=True); input()"
    command = [sys.executable, "-c", program]
    with running(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "mine\n"
        with pytest.raises(AssertionError, match="another test run"), host_resources.turn("of a test", 0.3):
            pass
    with host_resources.turn("of a test", 10):
        pass


def test_the_private_engine_is_not_stopped_under_a_run(tmp_path: Path) -> None:
    """Neither by the end of another run nor by hand."""
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "for_runs_only").touch()
    holding = ["flock", "--shared", str(engine / "users.lock"), "sh", "-c", "echo held; read line"]
    with running(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other_run:
        assert other_run.stdout.readline() == "held\n"
        assert private_engine(tmp_path, "stop-unused").returncode == 0
        by_hand = private_engine(tmp_path, "stop")
        assert (by_hand.returncode, "a test run is using the engine" in by_hand.stderr) == (1, True)
        assert (engine / "for_runs_only").exists()
        other_run.stdin.write("\n")
        other_run.stdin.flush()
        other_run.wait(10)
    assert private_engine(tmp_path, "stop-unused").returncode == 0
    assert not (engine / "for_runs_only").exists()


def private_engine(cache: Path, what: str) -> "subprocess.CompletedProcess[str]":
    """Run tests/engine/private_engine on a cache in which no daemon runs."""
    command = ["env", f"DEVGW_CACHE={cache}", str(ROOT / "tests/engine/private_engine"), what]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:9", "unix:///nowhere/docker.sock", "no address at all"])
def test_a_docker_that_does_not_answer_is_said_in_one_line(host: str) -> None:
    """`make demo` goes on with bubblewrap, as the README promises; a test run that asks for Docker ends there."""
    script = (ROOT / "tests/setup/with_engine").read_text().partition("DEVGW_TEST_IMAGE=$(")[0]
    for kind, code, words in (
        ("auto", 0, f"with_engine: no Docker answers at DOCKER_HOST={host}: using bubblewrap\n"),
        ("docker", 1, f"with_engine: error: no Docker answers at DOCKER_HOST={host}\nwith_engine: hint: "),
    ):
        program = [
            "env", f"DEVGW_TEST_ENGINE={kind}", f"DOCKER_HOST={host}", "bash", "-c",
            f"{script}\necho $DEVGW_TEST_ENGINE ${{DOCKER_HOST-none}}", str(ROOT / "tests/setup/with_engine"),
        ]  # fmt: skip
        done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert done.stderr.startswith(words), done.stderr
        assert done.stdout == ("bubblewrap none\n" if code == 0 else "")
