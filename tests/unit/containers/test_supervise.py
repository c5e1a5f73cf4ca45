"""The init process with real children: it heals, it reaps, it stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import end_those_with

SOURCES = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
SSHD = "#!/bin/sh\nprintf 'SSH-2.0-test\\r\\n'\nexec cat\n"
# The notebook server has tests of its own; here a process stands in for it, so that starting takes no time.
DRIVER = """
import sys
from devgw_environment import supervise
from devgw_environment.contract import Environment
supervise.notebook_command = lambda environment: ["sh", "-c", "echo standing in $(pwd); exec sleep 1000"]
supervise.LONGEST_DELAY_SECONDS = 1.0
sys.exit(supervise.run_supervisor(Environment.from_process()))
"""


def wait_for(condition: Callable[[], object], seconds: float = 8) -> object:
    """Poll until the condition holds and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the state was not reached in time"
        time.sleep(0.02)
    return value


@dataclass
class Supervisor:
    """The init process under test and what it has logged."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def path(self) -> Path:
        """The SSH socket."""
        return self.folder / "run" / "ssh.sock"

    def log(self) -> str:
        """Everything it has written."""
        return (self.folder / "log").read_text()

    def pids(self, event: str) -> list[int]:
        """The pids named by an event, oldest first."""
        lines = [line for line in self.log().splitlines() if f" {event} " in line]
        return [int(line.split("pid=")[1].split()[0]) for line in lines]

    def connect(self) -> socket.socket:
        """A connection that has met its sshd."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(str(self.path))
        assert connection.recv(100) == b"SSH-2.0-test\r\n"
        return connection

    def is_answering(self) -> bool:
        """Whether a new connection meets an sshd."""
        try:
            self.connect().close()
        except (OSError, AssertionError):
            return False
        return True


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A running init process with a stand-in for sshd."""
    for name in ("run", "env", "home", "tmp", "workspace"):
        (tmp_path / name).mkdir()
    sshd = tmp_path / "sshd"
    sshd.write_text(SSHD)
    sshd.chmod(0o755)
    (tmp_path / "workspace" / ".devcontainer.json").write_text('{"postCreateCommand": "touch ran; sleep 1000"}')
    variables = {
        **os.environ,
        "PYTHONPATH": str(SOURCES),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "DEVGW_USER": "alice",
        "DEVGW_WORKSPACE_FOLDER": str(tmp_path / "workspace"),
        "DEVGW_RUN_FOLDER": str(tmp_path / "run"),
        "DEVGW_CONFIG_FOLDER": str(tmp_path / "env"),
        "DEVGW_SSHD": str(sshd),
        "DEVGW_STOP_GRACE_SECONDS": "1",
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", DRIVER], env=variables, stdout=log, stderr=log, umask=0o077)
    running = Supervisor(process, tmp_path)
    try:
        wait_for(running.is_answering)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(20)


@pytest.mark.parametrize("service", ["listener", "notebook"])
def test_killed_service_is_started_again(supervisor: Supervisor, service: str) -> None:
    """After `kill -9` the part is back, and the log says why it went."""
    (pid,) = supervisor.pids(f"{service}.started")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(supervisor.pids(f"{service}.started")) == 2)
    assert f"{service}.ended exit_code=-9" in supervisor.log()
    wait_for(supervisor.is_answering)


def test_session_survives_the_listener(supervisor: Supervisor) -> None:
    """A session holds the connection itself, so killing the listener does not touch it."""
    with supervisor.connect() as session:
        os.kill(supervisor.pids("listener.started")[0], signal.SIGKILL)
        wait_for(lambda: len(supervisor.pids("listener.started")) == 2)
        session.sendall(b"still here")
        assert session.recv(100) == b"still here"


def test_the_notebook_server_stands_in_the_home(supervisor: Supervisor) -> None:
    """A kernel that is started without a notebook's path begins in the server's folder."""
    wait_for(lambda: f"standing in {supervisor.folder / 'home'}\n" in supervisor.log())


@pytest.mark.parametrize("replacement", ["nothing", "file", "link", "folder", "foreign socket"])
def test_damaged_socket_is_made_again(supervisor: Supervisor, replacement: str) -> None:
    """Whatever takes the socket's place, a socket with mode 0600 is back within two seconds."""
    supervisor.path.unlink()
    match replacement:
        case "file":
            supervisor.path.touch()
        case "link":
            supervisor.path.symlink_to("/dev/null")
        case "folder":
            supervisor.path.mkdir()
        case "foreign socket":
            with socket.socket(socket.AF_UNIX) as foreign:
                foreign.bind(str(supervisor.path))
    wait_for(supervisor.is_answering, 2.5)
    assert supervisor.path.lstat().st_mode & 0o777 == 0o600


def test_connections_beyond_the_most_are_told_why(supervisor: Supervisor) -> None:
    """The sixty-fifth connection is refused in a line, and when one ends there is room again."""
    sessions = [supervisor.connect() for _ in range(64)]
    with socket.socket(socket.AF_UNIX) as one_more:
        one_more.settimeout(5)
        one_more.connect(str(supervisor.path))
        assert one_more.recv(100).startswith(b"devgw: too many connections")
    sessions.pop().close()
    wait_for(supervisor.is_answering)
    for session in sessions:
        session.close()


def test_ended_sessions_are_reaped(supervisor: Supervisor) -> None:
    """No zombie is left by a session that ends."""
    supervisor.connect().close()
    wait_for(lambda: supervisor.log().count("connection.closed") == supervisor.log().count("connection.opened") > 1)
    children = Path(f"/proc/{supervisor.pids('listener.started')[0]}/task").glob("*/children")
    assert "".join(child.read_text() for child in children) == ""


def test_stop_ends_processes_that_hide_and_ignore(supervisor: Supervisor) -> None:
    """A process in a session of its own, its parent gone, SIGTERM ignored, ends with the environment."""
    hidden = supervisor.folder / "hidden"
    (supervisor.folder / "sshd").write_text(
        "#!/bin/sh\nprintf 'SSH-2.0-test\\r\\n'\n"
        f"setsid -f sh -c 'trap \"\" TERM; echo $$ > {hidden}; while :; do sleep 0.1; done'"
        " </dev/null >/dev/null\nexit 0\n"
    )
    supervisor.connect().close()
    pid = int(wait_for(lambda: hidden.exists() and hidden.read_text().strip()))
    started = time.monotonic()
    supervisor.process.terminate()
    assert supervisor.process.wait(10) == 0
    assert time.monotonic() - started < 5
    assert not Path(f"/proc/{pid}").exists()
    assert "environment.stopped killed=" in supervisor.log()


def test_second_start_gets_by_what_a_crash_left(supervisor: Supervisor) -> None:
    """After `kill -9` of the init process a new one replaces the stale socket."""
    items = Path(f"/proc/{supervisor.process.pid}/environ").read_text().split("\0")
    environ = dict(item.split("=", 1) for item in items if item)
    supervisor.process.kill()
    supervisor.process.wait(timeout=60)
    assert end_those_with(f"DEVGW_RUN_FOLDER={supervisor.folder / 'run'}", 0) != []
    assert supervisor.path.exists()
    assert not supervisor.is_answering()
    with (supervisor.folder / "log").open("w") as log:
        supervisor.process = subprocess.Popen([sys.executable, "-c", DRIVER], env=environ, stdout=log, stderr=log)
    wait_for(supervisor.is_answering)


def test_a_project_that_never_ends_is_no_obstacle(supervisor: Supervisor) -> None:
    """The environment answered (the fixture waits for it) and stops in its time; the command ends with it."""
    wait_for((supervisor.folder / "workspace" / "ran").exists, 30)
    assert "devgw-init project.running" in supervisor.log()
    supervisor.process.terminate()
    assert supervisor.process.wait(20) == 0


def test_what_an_environment_makes_is_readable_as_on_a_plain_server(supervisor: Supervisor) -> None:
    """Its processes have the umask 0022, whatever the engine's own is (proc(5), Umask in status)."""
    for pid in supervisor.pids("listener.started"):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        assert next(line.split()[1] for line in lines if line.startswith("Umask:")) == "0022"
