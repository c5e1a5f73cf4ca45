"""What a person who logs in reads about hosts outside and about their project: said where it is news."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "containers/image/rootfs/etc/profile.d/devgw.sh"
NOTE = "devgw: no host outside is open to you\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The image's own, which looks for the note where this test may write it."""
    copied = tmp_path / "devgw.sh"
    copied.write_text(SCRIPT.read_text().replace("/etc/devgw/env", str(tmp_path / "env")))
    (tmp_path / "env").mkdir()
    (tmp_path / "home").mkdir()
    return copied


def log_in(script: Path, shell: str = "bash", *, terminal: bool = True) -> str:
    """Return what a login shows."""
    ours, theirs = pty.openpty()
    try:
        variables = {"PATH": os.environ["PATH"], "HOME": str(script.parent / "home")}
        shown: int = theirs if terminal else subprocess.PIPE
        command = [shell, "-eu", "-c", f". {script}"]
        done = subprocess.run(command, env=variables, stdout=shown, stderr=theirs, timeout=60, check=True)
        os.write(theirs, b"end")
        text = b""
        while not text.endswith(b"end"):
            text += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    return (text.removesuffix(b"end") + (done.stdout or b"")).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_login_is_told_once_and_when_it_has_changed(script: Path, shell: str) -> None:
    """Not at each login: by then it is known, and a line that always stands there is read by nobody."""
    note = script.parent / "env" / "egress_note"
    note.write_text(NOTE)
    assert [log_in(script, shell) for _ in range(3)] == [NOTE, "", ""]
    note.write_text("devgw: connections outside, by name: pypi.org\n")
    assert [log_in(script, shell) for _ in range(2)] == [note.read_text(), ""]


def test_a_login_without_a_terminal_or_without_a_note_is_told_nothing(script: Path) -> None:
    """Nor does it count as told."""
    assert log_in(script) == ""
    (script.parent / "env" / "egress_note").write_text(NOTE)
    assert log_in(script, terminal=False) == ""
    (script.parent / "home" / ".hushlogin").touch()
    assert log_in(script) == ""
    (script.parent / "home" / ".hushlogin").unlink()
    assert log_in(script) == NOTE


def test_a_home_that_takes_no_file_is_told_each_time(script: Path) -> None:
    """A full or closed one; the line alone, without a complaint of the shell's."""
    (script.parent / "env" / "egress_note").write_text(NOTE)
    (script.parent / "home" / ".local").touch()
    assert [log_in(script) for _ in range(2)] == [NOTE, NOTE]


def test_a_project_is_news_once_and_trouble_at_each_login(script: Path) -> None:
    """What is left out is known after a login; a command that failed is to be mended."""
    kept = script.parent / "home/.local/state/devgw/project"
    kept.mkdir(parents=True)
    (kept / "project_news").write_text("left out\n")
    (kept / "note").write_text("failed\n")
    assert [log_in(script) for _ in range(2)] == ["left out\nfailed\n", "failed\n"]
    (kept / "note").write_text("")
    assert log_in(script) == ""


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_session_has_the_variables_of_its_project(script: Path, shell: str) -> None:
    """Whether it has a terminal or not; what else may stand there is not waited for."""
    kept = script.parent / "home/.local/state/devgw/project"
    kept.mkdir(parents=True)
    (kept / "variables.sh").write_text("export GREETING='it is $HOME'\n")
    script.write_text(script.read_text() + 'echo "${GREETING-nothing}"\n')
    assert [log_in(script, shell, terminal=terminal) for terminal in (True, False)] == ["it is $HOME\n"] * 2
    (kept / "variables.sh").unlink()
    os.mkfifo(kept / "variables.sh")
    assert log_in(script, shell) == "nothing\n"
