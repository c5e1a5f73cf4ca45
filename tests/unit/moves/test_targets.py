"""The promises of a move's target, which the way over ssh and rsync keeps, and the one in the same process."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.errors import MoveError, UsageError
from gateway.moves.other_host import DEVGW, SSH, OtherHost, Target
from gateway.operations.receiving import HereReceiver
from gateway.store.moves import Move
from tests.fakes.move_target import NearTarget
from tests.unit.moves.two_hosts import ALICE, MAIN, POLICY, TwoHosts

MOVE = "0123456789abcdef" * 2
ROOT = Path(__file__).parents[3]
ENTER = """#!/bin/sh
# stands in for ssh: the other host is this one, in other directories
while [ "$1" = -l ]; do shift 2; done
shift
exec sh -c "$*"
"""


@dataclass
class Subject:
    """A target, and the two hosts behind it."""

    target: Target
    hosts: TwoHosts

    def said(self):
        move = Move(MOVE, "source", ALICE, "root@target", "begun", "why", "root")
        return self.hosts.departures()._said.of(move)

    def copy(self, volume: str = "home", *, may_change: bool = False) -> None:
        directory = self.hosts.source.home().parent / volume
        self.target.copy(directory, MOVE, "main", volume, may_change=may_change)


def over_ssh(hosts: TwoHosts, directory: Path) -> OtherHost:
    """Return the way by programs: a script for ssh, the real rsync, and the command line in processes of its own."""
    script = directory / "ssh"
    script.write_text(ENTER)
    script.chmod(0o755)
    settings = hosts.target.settings
    variables = {
        f"DEVGW_{name.upper()}_DIR": getattr(settings, f"{name}_dir") for name in ("config", "state", "run", "cache")
    }
    variables |= {"DEVGW_SERVER_PUBLIC_HOST": "target.example.org", "DEVGW_ENVIRONMENTS_UID_START": "300000"}
    variables |= {"DEVGW_ENVIRONMENTS_IMAGE": "devgw/env:cpu", "PYTHONPATH": str(ROOT)}
    words = [f"{name}={value}" for name, value in variables.items()]
    return OtherHost("root@target", (str(script),), ("env", *words, sys.executable, "-m", "tests.support.fake_devgw"))


MAKERS: dict[str, Callable[[TwoHosts, Path], Target]] = {
    "near": lambda hosts, _directory: NearTarget(lambda: hosts.target.app.administration.arrivals),
    "over ssh": over_ssh,
}


@pytest.fixture(params=["near", pytest.param("over ssh", marks=pytest.mark.slow)])
def subject(request: pytest.FixtureRequest, hosts: TwoHosts, tmp_path: Path) -> Subject:
    return Subject(MAKERS[request.param](hosts, tmp_path), hosts)


def test_a_check_changes_nothing_and_says_how_to_connect(subject: Subject) -> None:
    reply = subject.target.ask("check", subject.said())
    assert (reply.step, reply.host) == ("", "target.example.org")
    assert reply.ssh_line.endswith("alice@target.example.org")
    assert subject.hosts.target.app.users.get(ALICE) is None


def test_each_question_and_each_copy_may_be_asked_again(subject: Subject) -> None:
    """The answer is the same, and what is there is there once."""
    subject.hosts.source.app.environments.stop(subject.hosts.source.app.table.all(ALICE)[0].ref)
    steps = [subject.target.ask("begin", subject.said()).step for _turn in range(2)]
    for _turn in range(2):
        subject.copy()
    for _turn in range(2):
        steps.append(subject.target.ask("activate", subject.said()).step)
        steps.append(subject.target.ask("begin", subject.said()).step)
    assert steps == ["reserved", "reserved", "arrived", "arrived", "arrived", "arrived"]
    codes = [record.code for record in subject.hosts.target.records()]
    assert (codes.count("move.begun"), codes.count("move.completed"), codes.count("key.added")) == (1, 1, 1)
    assert subject.hosts.target.home().joinpath("thesis.tex").read_text() == "chapter 1"


def test_a_copy_makes_the_volume_as_it_is_here(subject: Subject) -> None:
    """Modes, links, times and what was removed since; the owner is the user there."""
    home, there = subject.hosts.source.home(), subject.hosts.target.home()
    (home / "run.sh").write_text("#!/bin/sh\n")
    (home / "run.sh").chmod(0o750)
    (home / "link").symlink_to("/nowhere")
    (home / "deep" / "er").mkdir(parents=True)
    os.utime(home / "run.sh", (1_000_000, 1_000_000))
    (home / "gone").write_text("soon")
    subject.target.ask("begin", subject.said())
    subject.copy(may_change=True)
    assert (there / "gone").exists()
    (home / "gone").unlink()
    subject.copy()
    found = (there / "run.sh").lstat()
    assert (found.st_mode & 0o777, found.st_mtime, found.st_uid) == (0o750, 1_000_000, _uid(subject))
    assert (there / "link").readlink() == Path("/nowhere")
    assert (there / "deep" / "er").is_dir()
    assert not (there / "gone").exists()


def _uid(subject: Subject) -> int:
    return subject.hosts.target.app.environments.files.owner(subject.hosts.target.app.table.all(ALICE)[0].ref)[0]


def test_a_refusal_has_the_targets_words_and_exit_code(subject: Subject) -> None:
    policy = subject.hosts.target.settings.config_dir / "policy.toml"
    policy.write_text(POLICY.replace("max_environments = 3", "max_environments = 1"))
    with pytest.raises(MoveError) as refused:
        subject.target.ask("check", subject.said())
    assert (refused.value.code, refused.value.exit_code) == ("move.refused", 5)
    assert refused.value.message.startswith("root@target: ")
    assert "max_environments" in refused.value.message
    assert refused.value.hint


def test_no_file_is_taken_before_the_beginning_nor_after_the_end(subject: Subject) -> None:
    with pytest.raises(MoveError) as refused:
        subject.copy()
    assert "no move" in refused.value.message
    subject.target.ask("begin", subject.said())
    subject.target.ask("activate", subject.said())
    with pytest.raises(MoveError) as refused:
        subject.copy()
    assert "no more files" in refused.value.message


def test_who_is_given_up_leaves_nothing_there_and_does_not_arrive_late(subject: Subject) -> None:
    subject.target.ask("begin", subject.said())
    subject.copy()
    for _turn in range(2):
        assert subject.target.ask("abort", subject.said()).step == "aborted"
    assert subject.hosts.target.app.users.get(ALICE) is None
    assert not subject.hosts.target.home().exists()
    for question in ("begin", "activate"):
        with pytest.raises(MoveError) as refused:
            subject.target.ask(question, subject.said())
        assert "was put back" in refused.value.message


def test_giving_up_a_move_that_never_came_is_nothing(subject: Subject) -> None:
    assert subject.target.ask("abort", subject.said()).step == ""


def ssh_that(tmp_path: Path, script: str) -> tuple[str, ...]:
    place = tmp_path / "broken-ssh"
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    return (str(place),)


BROKEN = [
    ("echo 'Host key verification failed.' >&2; exit 255", "move.unreachable", "Host key verification failed."),
    ("echo 'root@target: Permission denied (publickey).' >&2; exit 255", "move.unreachable", "Permission denied"),
    ("echo 'sh: 1: devgw: not found' >&2; exit 127", "move.older", "there is no devgw on root@target"),
    (
        "printf \"devgw: error: no such command 'move-in'\\ndevgw: hint: 'devgw --help' shows\\n\" >&2; exit 2",
        "move.older",
        "is older, and knows no moves",
    ),
    ("echo 'devgw 0.0.1'", "move.bad-description", "root@target"),
    ('echo \'{"devgw": "99", "step": "", "more": 1}\'', "move.bad-description", "more"),
    ("exit 3", "move.unreachable", "exit code 3"),
]


@pytest.mark.parametrize(("script", "code", "said"), BROKEN)
def test_what_goes_wrong_on_the_way_is_one_line_with_a_hint(
    hosts: TwoHosts, tmp_path: Path, script: str, code: str, said: str
) -> None:
    """A key, a host, a program that is not there or is older: each in its own words."""
    other = OtherHost("root@target", ssh_that(tmp_path, f"cat >/dev/null; {script}"))
    with pytest.raises(MoveError) as refused:
        other.ask("check", Subject(other, hosts).said())
    assert (refused.value.code, said in refused.value.message) == (code, True), refused.value.message
    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_an_ssh_that_is_not_there_is_said(hosts: TwoHosts) -> None:
    other = OtherHost("root@target", ("/no/such/ssh",))
    with pytest.raises(MoveError) as refused:
        other.ask("check", Subject(other, hosts).said())
    assert refused.value.code == "move.unreachable"


def test_a_copy_that_breaks_says_so(hosts: TwoHosts, tmp_path: Path) -> None:
    other = OtherHost("root@target", ssh_that(tmp_path, "echo 'ssh: connect to host target: No route' >&2; exit 255"))
    with pytest.raises(MoveError) as refused:
        other.copy(hosts.source.home(), MOVE, "main", "home", may_change=False)
    assert refused.value.code == "move.unreachable"


@pytest.mark.parametrize(
    "destination", ["", "-oProxyCommand=id", "root@", "a b", "root@host;id", "root@host:22", "@host"]
)
def test_what_is_no_destination_reaches_no_program(destination: str) -> None:
    with pytest.raises(UsageError) as refused:
        OtherHost(destination)
    assert refused.value.code == "move.bad-target"


@pytest.mark.parametrize("destination", ["root@gpu2.example.org", "gpu2", "ops@10.0.0.2", "root@[2001:db8::1]"])
def test_what_is_a_destination_is_taken(destination: str) -> None:
    assert OtherHost(destination).ssh == SSH
    assert OtherHost(destination).devgw == DEVGW


def test_ssh_asks_nothing_and_trusts_known_hosts_alone() -> None:
    """The options that keep a stranger's host and a question away."""
    words = " ".join(SSH)
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ClearAllForwardings=yes", "-a", "-x"):
        assert option in words


@pytest.mark.parametrize(
    "arguments",
    [["--server", "--sender", "-vlogDtpre.iLsfxC", ".", "volume"], ["-a", ".", "volume"], [], ["--server"]],
)
@pytest.mark.parametrize("volume", ["home", "../../../etc"])
def test_only_rsync_that_writes_may_ask_for_files(hosts: TwoHosts, arguments: list[str], volume: str) -> None:
    """Nobody reads a user's files by this way, and none is written elsewhere."""
    receiver = HereReceiver(hosts.source.app.environments, is_root=False)
    with pytest.raises(UsageError) as refused:
        receiver.receive(MAIN, volume, arguments)
    assert refused.value.code == "move.bad-files"


def test_a_place_that_is_no_volume_is_none(hosts: TwoHosts) -> None:
    receiver = HereReceiver(hosts.source.app.environments, is_root=False)
    with pytest.raises(UsageError):
        receiver.receive(MAIN, "../proj/home", ["--server", "-re.iLsfxC", ".", "volume"])


TIMES = 'rsync: [generator] failed to set times on "/home/alice/.": Operation not permitted (1)'
MODE = 'rsync: [receiver] failed to set permissions on "/workspace/.": Operation not permitted (1)'
OTHER = 'rsync: [receiver] mkstemp "/home/alice/.a.Xy" failed: No space left on device (28)'
FORGED = (
    'rsync: [generator] failed to set times on "/home/alice/.": Operation not permitted (1)": Permission denied (13)'
)
GONE = 'file has vanished: "/var/lib/devgw/volumes/alice/main/home/x"'
END = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1338)"
NOISE = "/root/.bashrc: line 3: pyenv: command not found"


@pytest.mark.parametrize(
    ("code", "lines", "first_pass", "second_pass"),
    [
        (0, [], True, True),
        (23, [TIMES, END], True, True),
        (23, [NOISE, TIMES, MODE, END], True, True),
        (23, [TIMES, GONE, END], True, False),
        (24, [GONE], True, False),
        (23, [END], False, False),
        (23, [TIMES, OTHER, END], False, False),
        (23, [FORGED, END], False, False),
        (23, [TIMES.replace("/home/alice/.", "/home/alice/a"), END], False, False),
        (11, [TIMES], False, False),
    ],
)
def test_only_what_is_the_clusters_own_may_be_left_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, code: int, lines: list[str], first_pass: bool, second_pass: bool
) -> None:
    """A claim's own directory is not its user's; whatever else rsync leaves is a copy that failed."""
    said = tmp_path / "said"
    said.write_text("".join(f"{line}\n" for line in lines))
    rsync = tmp_path / "rsync"
    rsync.write_text(f"#!/bin/sh\ncat {said} >&2\nexit {code}\n")
    rsync.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for may_change, expected in ((True, first_pass), (False, second_pass)):
        refusal = nullcontext() if expected else pytest.raises(MoveError, match="files of main: home cannot be copied")
        with refusal:
            OtherHost("root@target").copy(tmp_path, MOVE, "main", "home", may_change=may_change)
