"""The command as a process: speed, signals, pipes, terminals. What the commands do stands in the transcripts."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.version import VERSION
from tests.support.processes import is_readable, running

_DEVGW = [sys.executable, "-m", "gateway"]
_SLOW_SECONDS = 20.0


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return the variables of a site in a temporary directory, whose engine does not exist."""
    places = {f"DEVGW_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "STATE", "RUN", "CACHE")}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DEVGW_")},
        **places,
        "HOME": str(tmp_path),
        "DEVGW_ENGINE_DOCKER_URL": f"unix://{tmp_path}/no-such.sock",
        "TERM": "xterm",
    }


def devgw(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*_DEVGW, *arguments], env=environ, capture_output=True, text=True, timeout=_SLOW_SECONDS, check=False
    )


@pytest.mark.parametrize("question", [["--version"], ["version"]])
def test_version_is_answered_in_well_under_a_third_of_a_second(environ: dict[str, str], question: list[str]) -> None:
    """The quickest of five: the machine may be busy, the command is not."""
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        answer = devgw(environ, *question)
        seconds.append(time.monotonic() - started)
        assert answer.stdout == f"devgw {VERSION}\n"
    assert min(seconds) < 0.3


def test_version_imports_no_library(environ: dict[str, str]) -> None:
    """What keeps it quick, independent of the machine."""
    asked = "import sys; sys.argv[1:] = ['--version']; from gateway.__main__ import main; main(); print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", asked], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"typer", "rich", "pydantic", "sqlalchemy", "docker", "asyncssh"}
    assert not heavy & set(answer.stdout.split())


def test_devgw_alone_prints_help(environ: dict[str, str]) -> None:
    """It lists every command, and that is no failure."""
    answer = devgw(environ)
    assert answer.returncode == 0
    assert "Environments:" in answer.stdout
    assert "config-ssh" in answer.stdout


def test_help_of_one_command_imports_no_other(environ: dict[str, str]) -> None:
    """A command's module is imported when it runs."""
    asked = "import sys; from gateway.cli.program import run; run(['stop', '--help']); print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", asked], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(answer.stdout.split())
    assert "gateway.cli.stop" in loaded
    assert not {"gateway.cli.create", "gateway.cli.image", "sqlalchemy", "docker", "asyncssh"} & loaded


def test_broken_pipe_is_quiet(environ: dict[str, str]) -> None:
    """`devgw completion bash | head -0` says nothing."""
    reader, writer = os.pipe()
    os.close(reader)
    with running(
        [*_DEVGW, "completion", "bash"], env=environ, stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        _, complaint = process.communicate(timeout=_SLOW_SECONDS)
    assert complaint == ""
    assert process.returncode == 1


def test_a_full_disk_behind_stdout_is_an_error(environ: dict[str, str]) -> None:
    """A result that could not be written is no success."""
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [*_DEVGW, "completion", "bash"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert answer.returncode == 1
    assert answer.stderr.startswith("devgw: error: no space left on device\n")


def test_interrupt_ends_with_130(environ: dict[str, str], tmp_path: Path) -> None:
    """Ctrl-C while a command waits for a key that does not come."""
    key = tmp_path / "slow.pub"
    os.mkfifo(key)
    with running([*_DEVGW, "create", "alice", "--key", key], env=environ, stderr=subprocess.PIPE, text=True) as process:
        writer = os.open(key, os.O_WRONLY)  # returns when the command has opened its side
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=_SLOW_SECONDS)
        os.close(writer)
    assert (process.returncode, complaint) == (130, "devgw: error: interrupted\n")


def test_an_unexpected_exception_is_one_line_and_a_hint(environ: dict[str, str]) -> None:
    """The traceback is for those who ask for it."""
    failing = (
        "import sys; from gateway.cli.program import run; sys.exit(run(['list'], make_app=lambda _settings: 1 / 0))"
    )
    plain = subprocess.run(
        [sys.executable, "-c", failing], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert plain.returncode == 1
    assert plain.stderr.splitlines()[0] == "devgw: error: unexpected ZeroDivisionError: division by zero"
    assert "DEVGW_DEBUG=1" in plain.stderr.splitlines()[1]
    assert len(plain.stderr.splitlines()) == 2
    debug = subprocess.run(
        [sys.executable, "-c", failing],
        env={**environ, "DEVGW_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback (most recent call last)" in debug.stderr


def test_delete_asks_on_a_terminal(environ: dict[str, str]) -> None:
    """`n` leaves everything as it is."""
    seen, code = on_terminal("from tests.cli.test_process import ask_and_tell; ask_and_tell()", environ, b"n\n")
    assert b"delete alice? [y/N]" in seen
    assert b"answer: False" in seen
    assert code == 0


def test_progress_moves_on_a_terminal_and_ends_clean(environ: dict[str, str]) -> None:
    """The spinner redraws one line; NO_COLOR takes the colours away."""
    seen, code = on_terminal("from tests.cli.test_process import show_progress; show_progress()", environ)
    assert code == 0
    assert b"making directories" in seen
    assert b"\r" in seen.replace(b"\r\n", b"")
    without, _ = on_terminal(
        "from tests.cli.test_process import show_progress; show_progress()", {**environ, "NO_COLOR": "1"}
    )
    assert b"\x1b[32m" in seen
    assert b"\x1b[32m" not in without


def test_completion_offers_commands_options_and_handles(environ: dict[str, str]) -> None:
    """As the shell's script asks for it."""

    def complete(line: str) -> set[str]:
        words = line.split(" ")
        asked = {"_DEVGW_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return set(devgw({**environ, **asked}).stdout.split())

    assert complete("devgw s") == {"serve", "sessions", "show", "start", "stop"}
    assert "--purge" in complete("devgw delete --p")
    assert complete("devgw key a") == {"add"}
    assert complete("devgw show al") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(environ: dict[str, str], shell: str) -> None:
    """The script asks `devgw` itself, so it never goes stale."""
    answer = devgw(environ, "completion", shell)
    assert answer.returncode == 0
    assert f"_DEVGW_COMPLETE=complete_{shell}" in answer.stdout


def ask_and_tell() -> None:
    """Ask, on whatever terminal this process has."""
    from gateway.cli.output import Output

    print("answer:", Output().confirm("delete alice?", yes=False))


def show_progress() -> None:
    """Show two steps, long enough for one redraw each."""
    from gateway.cli.output import Output

    with Output().progress() as progress:
        for step in ("making directories", "waiting for ssh"):
            progress(step)
            time.sleep(0.3)  # the spinner draws 12.5 times a second by its own clock


def on_terminal(code: str, environ: Mapping[str, str], typed: bytes = b"") -> tuple[bytes, int]:
    """Run Python code on a pseudo-terminal; return what it showed and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-c", code], dict(environ))  # noqa: S606 - no shell is the point
    os.write(terminal, typed)
    seen = b""
    deadline = time.monotonic() + _SLOW_SECONDS
    while time.monotonic() < deadline:
        if not is_readable(terminal, 0.2):
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # EIO: the other side has closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(terminal)
    return seen, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_top_draws_again_and_again_and_ends_well_on_ctrl_c(environ: dict[str, str]) -> None:
    """On the terminal's other screen, which is left as it was; without a GPU it says why."""
    assert devgw(environ, "init", "-q").returncode == 0
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [*_DEVGW, "top", "--interval", "0.5"], dict(environ))  # noqa: S606 - no shell is the point
    seen, deadline, is_asked = b"", time.monotonic() + _SLOW_SECONDS, False
    while time.monotonic() < deadline:
        if not is_readable(terminal, 0.2):
            continue
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # EIO: the other side has closed
            break
        if seen.count(b"waiting for a GPU: nobody") >= 2 and not is_asked:
            os.write(terminal, b"\x03")
            is_asked = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen
    assert b"\x1b[?1049h" in seen
    assert seen.rstrip().endswith((b"\x1b[?1049l\x1b[?25h", b"\x1b[?25h\x1b[?1049l", b"\x1b[?25h")), seen[-60:]
    assert b"Traceback" not in seen
