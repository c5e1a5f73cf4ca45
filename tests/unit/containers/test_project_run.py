"""A project carried out: its commands as the user, bounded and once for a content, and what a login is told of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.gateway_process import poll
from tests.support.processes import running

SOURCES = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
LIMITED = """
import sys
from devgw_environment.contract import Environment
from devgw_environment.project.carry_out import CarryingOut
sys.exit(not CarryingOut(Environment.from_process(), limit_seconds=2).run())
"""


@dataclass
class Site:
    """A home and a workspace, and the programs of the image that work on them."""

    root: Path

    @property
    def variables(self) -> dict[str, str]:
        own = {"HOME": self.root / "home", "DEVGW_WORKSPACE_FOLDER": self.workspace, "DEVGW_CONFIG_FOLDER": self.root}
        return os.environ | {name: str(path) for name, path in own.items()} | {"PYTHONPATH": str(SOURCES)}

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def state(self) -> Path:
        return self.root / "home/.local/state/devgw/project"

    @property
    def log(self) -> str:
        return (self.state / "log").read_text()

    @property
    def note(self) -> str:
        note = self.state / "note"
        return note.read_text() if note.exists() else ""

    @property
    def news(self) -> str:
        news = self.state / "project_news"
        return news.read_text() if news.exists() else ""

    def write(self, name: str = ".devcontainer.json", **content: object) -> Path:
        """Write a project's file."""
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    def start(self, *command: str, expect: int = 0) -> str:
        """Do what the init process does at each start of an environment."""
        return self._run([sys.executable, *(command or ("-m", "devgw_environment", "project"))], expect)

    def type(self, *arguments: str, expect: int = 0) -> str:
        """Do what a person types in a session."""
        shown = self._run([sys.executable, "-m", "devgw_environment.project.program", *arguments], expect)
        assert "devgw-init" not in shown  # the lines of the environment's own log
        return shown

    def _run(self, command: list[str], expect: int) -> str:
        done = subprocess.run(
            command, env=self.variables, cwd=self.workspace, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("home", "workspace"):
        (tmp_path / name).mkdir()
    return Site(tmp_path)


def test_the_workspaces_own_file_is_carried_out_once_for_a_content(site: Site) -> None:
    """In the project's folder, with the variables of its file; another content counts anew, `run` repeats it."""
    command = "echo $GREETING from $(pwd) >> ran"
    site.write(remoteEnv={"GREETING": "hello"}, postCreateCommand=command, postStartCommand="echo start >> ran")
    site.start()
    site.start()
    said = f"hello from {site.workspace}"
    ran = site.workspace / "ran"
    assert ran.read_text().splitlines() == [said, "start", "start"]
    site.write(remoteEnv={"GREETING": "other"}, postCreateCommand=command)
    site.start()
    site.type("run")
    assert ran.read_text().splitlines()[3:] == [said.replace("hello", "other")] * 2
    assert (site.note, site.news) == ("", "")


def test_all_commands_run_in_the_specifications_order_and_each_form(site: Site) -> None:
    """An array is no line of the shell; an object's commands run side by side, both to their end."""
    meet = "touch {0}; n=0; until [ -e {1} ] || [ $n = 300 ]; do sleep 0.1; n=$((n+1)); done; [ -e {1} ] && echo met"
    site.write(
        postCreateCommand={"a": meet.format("a", "b"), "b": ["sh", "-c", meet.format("b", "a")]},
        onCreateCommand=["echo", "$HOME"],
        updateContentCommand="echo ${containerWorkspaceFolderBasename}; echo to stderr >&2",
    )
    site.start()
    lines = site.log.splitlines()
    assert lines[:2] == ["[devgw: onCreateCommand]", "$HOME"]
    assert lines[2:5] == ["[devgw: updateContentCommand]", "workspace", "to stderr"]
    assert lines[5:] == ["[devgw: postCreateCommand]", "met", "met"]


def test_a_failure_is_told_at_each_login_and_ends_the_row(site: Site) -> None:
    """With its exit status, where its output is, and what to type; it does not run again by itself."""
    site.write(onCreateCommand={"deps": "echo broken >&2; exit 3", "fine": "true"}, postCreateCommand="touch never")
    site.start(expect=1)
    assert "onCreateCommand 'deps' ended with exit status 3" in site.note
    assert "~/.local/state/devgw/project/log" in site.note
    assert "devgw-project run" in site.note
    assert "broken" in site.log
    assert not (site.workspace / "never").exists()
    site.write(postCreateCommand=["/no/such/program"])
    site.start(expect=1)
    assert "could not be started: No such file or directory" in site.note
    site.write(postCreateCommand="kill -9 $$")
    assert "was ended by signal 9" in site.type("run", expect=1)
    site.write(postCreateCommand="true")
    site.start()
    assert site.note == ""


def test_what_never_ends_is_ended_with_all_it_started(site: Site) -> None:
    """Its children that left their group and ignore SIGTERM among them."""
    site.write(
        postCreateCommand="setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.1; done' & sleep 1000"
    )
    started = time.monotonic()
    site.start("-c", LIMITED, expect=1)
    assert time.monotonic() - started < 60
    assert "did not end in its time and was ended" in site.note
    assert not Path("/proc", (site.workspace / "pid").read_text().strip()).exists()


def test_a_gigabyte_of_output_fills_neither_disk_nor_memory(site: Site) -> None:
    """The beginning and the end are kept, and how much is missing between them; the command is not held up."""
    size = 1 << 30
    site.write(postCreateCommand=f"echo first; head -c {size} /dev/zero; echo last")
    prefix = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29));"
    site.start("-c", prefix + LIMITED.replace("=2", "=80"))
    log = (site.state / "log").read_bytes()
    assert len(log) < 2 << 20
    assert log.startswith(b"[devgw: postCreateCommand]\nfirst\n")
    assert log.endswith(b"\0last\n")
    left_out = int(log.split(b" bytes are left out here]")[0].rpartition(b"[devgw: ")[2])
    assert left_out > size - (2 << 20)


def test_what_is_left_running_goes_on(site: Site) -> None:
    """A server in the background keeps nobody waiting, though it holds the output."""
    site.write(postStartCommand="sleep 1000 & echo $! > pid")
    started = time.monotonic()
    site.start()
    pid = int((site.workspace / "pid").read_text())
    assert time.monotonic() - started < 60
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, signal.SIGKILL)


def test_what_was_interrupted_runs_again_at_the_next_start(site: Site) -> None:
    """An environment that is stopped in the middle has not run its commands, and none of them is left over."""
    site.write(postCreateCommand="echo $$ > pid; [ -e second ] || exec sleep 1000")
    command = [sys.executable, "-m", "devgw_environment", "project"]
    with running(command, env=site.variables, stdout=subprocess.DEVNULL) as started:
        pid = int(poll(lambda: (site.workspace / "pid").exists() and (site.workspace / "pid").read_text(), "a pid"))
        assert "began" in site.note
        assert "running" in site.type()
        assert "a project's commands are running" in site.type("run", expect=1)
        started.terminate()
        assert started.wait(30) == 1
    assert not Path(f"/proc/{pid}").exists()
    assert "was interrupted" in site.note
    (site.workspace / "second").touch()
    site.start()
    assert "ended: postCreateCommand" in site.type()


def test_a_clone_is_carried_out_by_its_users_word_alone(site: Site) -> None:
    """Who clones something to read it has not asked for its commands; a login says once what could be typed."""
    file = site.write("clone/.devcontainer/devcontainer.json", remoteEnv={"A": "1"}, postCreateCommand="touch ran")
    ran = site.workspace / "clone" / "ran"
    site.start()
    assert site.news == f"devgw: clone in {site.workspace} can be set up: devgw-project use FOLDER\n"
    assert not ran.exists()
    assert f"also here: {file}" in site.type()
    assert f"{file}: ended: postCreateCommand" in site.type("use", "clone")
    assert ran.exists()
    ran.unlink()
    site.start()  # chosen from now on: its variables, and its commands when they change
    assert not ran.exists()
    assert (site.state / "variables.sh").read_text() == "export A=1\n"
    assert "no project is carried out" in site.type("off")
    assert (site.state / "variables.sh").read_text() == ""
    file.write_text('{"postCreateCommand": "touch ran"}')
    site.start()
    assert not ran.exists()
    assert "error: ../home is not in" in site.type("use", "../home", expect=1).replace(
        str(site.root / "home"), "../home"
    )


def test_what_is_left_out_is_told_once(site: Site) -> None:
    """In one line, and nothing of it is done."""
    site.write(
        privileged=True, mounts=["source=/,target=/host"], postCreateCommand="true", remoteEnv={"LD_PRELOAD": "x"}
    )
    site.start()
    (line,) = site.news.splitlines()
    assert line.endswith("left out: mounts, privileged (the policy decides); LD_PRELOAD (kept as it is)")
    assert "mounts, privileged (the policy decides)" in site.type()
    assert not (site.state / "variables.sh").exists()


@pytest.mark.parametrize("broken", ["text", "pipe", "link", "huge"])
def test_a_broken_file_is_told_and_nothing_of_it_is_done(site: Site, broken: str) -> None:
    """One line with the reason, at each login until it is mended."""
    path = site.write()
    path.unlink()
    match broken:
        case "text":
            path.write_text('{"postCreateCommand": "touch ran", ')
        case "pipe":
            os.mkfifo(path)
        case "link":
            (site.root / "outside").write_text('{"postCreateCommand": "touch ran"}')
            path.symlink_to(site.root / "outside")
        case "huge":
            path.write_text('{"postCreateCommand": "touch ran"}' + " " * 70_000)
    site.start(expect=1)
    assert site.note.startswith("devgw: the project is not carried out: ")
    assert site.note.count("\n") == 1
    assert not (site.workspace / "ran").exists()
    assert "refused" in site.type()
    path.unlink()
    site.write(postCreateCommand="touch ran")
    site.start()
    assert (site.workspace / "ran").exists()
    assert site.note == ""


@pytest.mark.parametrize("damage", ["pipe", "text", "folder", "closed"])
def test_a_damaged_memory_is_no_obstacle(site: Site, damage: str) -> None:
    """The home is the user's: what stands where the state is kept may be anything."""
    state = site.state / "state.json"
    state.parent.mkdir(parents=True)
    site.write(postCreateCommand="touch ran")
    match damage:
        case "pipe":
            os.mkfifo(state)
            os.mkfifo(site.state / "log")
        case "text":
            state.write_text('{"ran": [1], "last": 7, "chosen": {}')
        case "folder":
            state.mkdir()
        case "closed":
            state.parent.rmdir()
            state.parent.touch()
    is_usable = damage in {"pipe", "text"}
    said = site.start(expect=0 if is_usable else 1)
    assert (site.workspace / "ran").exists() == is_usable
    assert ("project.unusable" in said) == (not is_usable)


def test_a_workspace_without_a_project_leaves_no_trace(site: Site) -> None:
    """Nor does a file that went away keep its variables."""
    site.start()
    assert list((site.root / "home").iterdir()) == []
    file = site.write(remoteEnv={"A": "1"})
    site.start()
    file.unlink()
    site.start()
    assert (site.state / "variables.sh").read_text() == ""


def test_a_path_of_a_project_is_no_longer_at_each_start(site: Site) -> None:
    """It is made from the PATH of a login without the project's."""
    site.write(remoteEnv={"PATH": "/extra:${containerEnv:PATH}"})
    profile = site.root / "home/.profile"
    profile.write_text(f'[ -n "$DEVGW_NO_PROJECT" ] || . {site.state}/variables.sh\n')
    site.start()
    first = (site.state / "variables.sh").read_text()
    site.start()
    assert first.count("/extra") == 1
    assert (site.state / "variables.sh").read_text() == first
