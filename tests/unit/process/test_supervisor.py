"""The parent of several workers: real processes and real signals, workers that do nothing but report."""

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.config import SshSettings
from gateway.errors import ConflictError
from gateway.process.supervisor import exit_status, reserve
from tests.support.gateway_process import poll

WATCHDOG_SECONDS = 2


class Stage:
    """A supervisor under way, what its workers noted, and what systemd would have heard."""

    def __init__(self, root: Path, inbox: socket.socket, name: str) -> None:
        self.root = root
        self._inbox = inbox
        self._variables = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
        self.parent: subprocess.Popen[bytes] | None = None

    def start(self, workers: int = 2) -> None:
        argv = [sys.executable, "-m", "tests.unit.process.supervised", str(self.root), str(workers)]
        self.parent = subprocess.Popen(argv, env=os.environ | self._variables, stderr=(self.root / "log").open("wb"))

    def send(self, number: signal.Signals) -> None:
        assert self.parent is not None
        self.parent.send_signal(number)

    def end(self) -> int:
        assert self.parent is not None
        return self.parent.wait(20)

    def lines(self, what: str) -> list[list[str]]:
        """Return what was noted of a kind: index, then pid or line."""
        file = self.root / "lines"
        noted = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
        return [rest for kind, *rest in noted if kind == what]

    def pids(self) -> list[int]:
        """Return the last process that served in each place."""
        last = {index: int(pid) for index, pid in self.lines("serve")}
        return [last[index] for index in sorted(last)]

    def await_count(self, what: str, count: int) -> list[list[str]]:
        poll(lambda: len(self.lines(what)) >= count, f"{count} of {what!r}", 20)
        return self.lines(what)

    def await_word(self, word: bytes) -> None:
        """Read until systemd is told this."""
        while not self._inbox.recv(4096).startswith(word):
            pass

    def log(self) -> str:
        return (self.root / "log").read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    name = f"devgw-test-{uuid.uuid4().hex[:8]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(f"\0{name}")
        inbox.settimeout(20)
        made = Stage(tmp_path, inbox, name)
        yield made
        if made.parent and made.parent.poll() is None:
            made.parent.kill()
            made.parent.wait(timeout=60)


def is_gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def test_systemd_hears_of_all_as_of_one(stage: Stage) -> None:
    """Ready when all serve, reloading until all have reloaded, alive, stopping; the first serves before the others."""
    stage.start(3)
    stage.await_word(b"READY=1")
    started = [(what, index) for what in ("start", "serve") for index, _pid in stage.lines(what)]
    assert started[0] == ("start", "0")
    assert sorted(index for what, index in started if what == "serve") == ["0", "1", "2"]
    stage.send(signal.SIGHUP)
    stage.await_word(b"RELOADING=1\nMONOTONIC_USEC=")
    stage.await_word(b"READY=1")
    assert sorted(index for index, _pid in stage.lines("SIGHUP")) == ["0", "1", "2"]
    stage.await_word(b"WATCHDOG=1")
    stage.send(signal.SIGTERM)
    stage.await_word(b"STOPPING=1")
    assert stage.end() == 0
    assert len(stage.lines("SIGTERM")) == 3


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_worker_is_replaced_and_the_other_is_not_touched(stage: Stage, index: int) -> None:
    """Also the first one; the log says how it ended."""
    stage.start()
    stage.await_word(b"READY=1")
    before = stage.pids()
    os.kill(before[index], signal.SIGKILL)
    stage.await_count("serve", 3)
    after = stage.pids()
    assert after[index] != before[index]
    assert after[1 - index] == before[1 - index]
    assert f"(process {before[index]}) was killed by signal 9; another starts now" in stage.log()
    stage.send(signal.SIGTERM)
    assert stage.end() == 0


def test_a_worker_that_dies_again_and_again_waits_longer_each_time(stage: Stage) -> None:
    """The others go on, and the log says what is the matter; a stop waits for nobody."""
    (stage.root / "exit-1").write_text("7")
    stage.start()
    poll(lambda: "ended with 7; another starts in 2 s, after 3 that did not last" in stage.log(), "the pause")
    assert len(stage.lines("start")) == 4
    assert "ended with 7; another starts now" in stage.log()
    (stage.root / "exit-1").unlink()
    stage.await_word(b"READY=1")
    stage.send(signal.SIGTERM)
    assert stage.end() == 0


def test_a_gateway_that_cannot_begin_ends_with_its_first_worker(stage: Stage) -> None:
    """A faulty setting is no reason to try again, and no second worker is started."""
    (stage.root / "exit-0").write_text("6")
    stage.start()
    assert stage.end() == 6
    assert [index for index, _pid in stage.lines("start")] == ["0"]


def test_the_second_sigterm_is_passed_on_and_the_worst_code_is_the_end(stage: Stage) -> None:
    """The first one drains."""
    (stage.root / "drain").touch()
    (stage.root / "end-1").write_text("5")
    stage.start()
    stage.await_word(b"READY=1")
    stage.send(signal.SIGTERM)
    stage.await_count("SIGTERM", 2)
    assert stage.parent is not None
    assert stage.parent.poll() is None
    stage.send(signal.SIGTERM)
    assert stage.end() == 5
    assert len(stage.lines("SIGTERM")) == 4


def test_a_worker_that_hangs_is_killed_and_replaced(stage: Stage) -> None:
    """One that is stopped says nothing, as one whose event loop stands still."""
    stage.start()
    stage.await_word(b"READY=1")
    os.kill(stage.pids()[1], signal.SIGSTOP)
    stage.await_count("serve", 3)
    assert re.search(r"has hung for [2-9] s: killed", stage.log())
    stage.send(signal.SIGTERM)
    assert stage.end() == 0


def test_a_line_for_terminals_reaches_the_others(stage: Stage) -> None:
    """Not the one that said it, which has written it already."""
    stage.start(3)
    stage.await_word(b"READY=1")
    os.kill(stage.pids()[0], signal.SIGUSR1)
    heard = stage.await_count("heard", 2)
    assert sorted(heard) == [["1", "LINE=alice a line"], ["2", "LINE=alice a line"]]
    stage.send(signal.SIGTERM)
    assert stage.end() == 0


def test_workers_notice_that_their_parent_is_gone(stage: Stage) -> None:
    """Each link ends with the parent alone: no worker holds another's."""
    stage.start()
    stage.await_word(b"READY=1")
    pids = stage.pids()
    stage.send(signal.SIGKILL)
    stage.await_count("orphaned", 2)
    for pid in pids:
        poll(is_gone(pid), f"the end of {pid}")


def test_a_port_is_kept_without_listening_and_not_shared_with_another_gateway() -> None:
    """Whoever connects meanwhile is refused; a second gateway hears that the port is taken."""
    settings = SshSettings(listen_address="127.0.0.1", port=0)
    kept, port = reserve(settings)
    with kept, socket.socket() as worker:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            worker.setsockopt(socket.SOL_SOCKET, option, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConflictError, match="another process listens on port"):
            reserve(settings.model_copy(update={"port": port}))


@pytest.mark.parametrize(("code", "status"), [(0, 0), (6, 6), (-9, 137)])
def test_a_signal_is_given_as_a_shell_gives_it(code: int, status: int) -> None:
    assert exit_status(code) == status
