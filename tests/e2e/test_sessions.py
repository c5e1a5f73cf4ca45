"""Shell, exec and file transfer through the gateway, driven by OpenSSH's own clients."""

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Laboratory
from tests.support.processes import running
from tests.support.ssh_clients import Terminal, poll
from tests.support.ssh_gateway import allow_all

BINARY = os.urandom(3 << 20)


@pytest.mark.attack("D1", "exit codes: none is lost or changed")
@pytest.mark.parametrize("code", [0, 5, 255])
def test_exec_returns_the_exit_code(laboratory: Laboratory, code: int) -> None:
    """The exit code is the command's own."""
    done = laboratory.gateway.run("alice", laboratory.alice, f"exit {code}")
    assert done.returncode == code, done.stderr


@pytest.mark.attack("D1", "the gateway adds nothing to either stream")
@pytest.mark.attack("D1", "the exit code of a multiplexed client, which closes at the end of output")
def test_the_exit_code_comes_also_after_the_end_of_output(laboratory: Laboratory, tmp_path: Path) -> None:
    """A ControlMaster closes a session without input as soon as its output ends, and must not lose the code by it."""
    for number in range(3):
        options = ["-o", f"ControlPath={tmp_path}/{number}", "-o", "ControlMaster=auto", "-o", "ControlPersist=2"]
        command = "exec >&- 2>&-; sleep 0.3; exit 7"
        client = laboratory.gateway.ssh("alice", laboratory.alice, command, before=options)
        nothing = subprocess.DEVNULL
        done = subprocess.run(client, stdin=nothing, stdout=nothing, stderr=nothing, timeout=30, check=False)
        assert done.returncode == 7


def test_the_end_of_output_is_passed_on_while_the_program_goes_on(laboratory: Laboratory) -> None:
    """`ssh host 'exec >&-; sleep 4' | cat` ends before its program does."""
    command = laboratory.gateway.ssh("alice", laboratory.alice, "echo out; exec >&- 2>&-; sleep 4")
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        began = time.monotonic()
        assert client.stdout.read() == b"out\n"
        assert time.monotonic() - began < 3


def test_exec_keeps_stdout_and_stderr_apart(laboratory: Laboratory) -> None:
    """Nothing of the gateway's own is on either."""
    done = laboratory.gateway.run("alice", laboratory.alice, "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_exec_runs_as_the_user_in_their_own_environment(laboratory: Laboratory) -> None:
    """Alice is alice, bob is bob, and neither is root."""
    names = [laboratory.gateway.run(name, key, "id -un; id -u").stdout.split() for name, key in users(laboratory)]
    assert [name[0] for name in names] == [b"alice", b"bob"]
    assert b"0" not in [name[1] for name in names]


def users(laboratory: Laboratory) -> list[tuple[str, Path]]:
    return [("alice", laboratory.alice), ("bob", laboratory.bob)]


@pytest.mark.attack("D1", "binary through both directions, with the end of input")
def test_a_binary_survives_both_directions(laboratory: Laboratory) -> None:
    """3 MB of random bytes through stdin and stdout compare equal, with the end of input passed on."""
    done = laboratory.gateway.run("alice", laboratory.alice, "cat", input=BINARY)
    assert done.returncode == 0
    assert done.stdout == BINARY


def test_stderr_carries_binary_too(laboratory: Laboratory) -> None:
    """Extended data is as clean as data."""
    done = laboratory.gateway.run("alice", laboratory.alice, "cat >&2", input=BINARY)
    assert done.stderr == BINARY


@pytest.mark.attack("D5", "a command in no encoding")
def test_a_command_need_not_be_utf8(laboratory: Laboratory) -> None:
    """File names of old encodings pass as they are."""
    command = laboratory.gateway.ssh("alice", laboratory.alice)
    done = subprocess.run([*command, b"printf %s \xe9\xff | od -An -tx1"], capture_output=True, check=True, timeout=20)
    assert done.stdout.split() == [b"e9", b"ff"]


@pytest.mark.attack("D1", "a command that dies of a signal")
def test_a_signal_that_ends_the_command_is_reported(laboratory: Laboratory) -> None:
    """Ssh itself exits 255 when the command died of a signal."""
    done = laboratory.gateway.run("alice", laboratory.alice, "kill -TERM $$")
    assert done.returncode == 255
    recorder = laboratory.gateway.recorder
    poll(lambda: [event for event in recorder.events if event.reason == "signal TERM"], "the record of the signal")


@pytest.mark.attack("D1", "resize and Ctrl-C")
def test_a_shell_has_a_terminal_that_follows_the_window(laboratory: Laboratory) -> None:
    """Size at start, resize, Ctrl-C and the exit code reach a login shell."""
    terminal = Terminal(laboratory.gateway.ssh("alice", laboratory.alice, before=["-tt"]), rows=31, columns=97)
    terminal.type("PS1=; stty -echo; tty >/dev/null && echo with-tty; stty size\n")
    terminal.expect("with-tty")
    terminal.expect("31 97")
    terminal.type("trap 'stty size' WINCH; echo rea''dy; sleep 0.1\n")
    terminal.expect("ready")
    terminal.resize(40, 120)
    terminal.type("for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; done; stty size\n")
    terminal.expect("40 120")
    terminal.type("sh -c 'echo slee\"\"ping; exec sleep 60'\n")  # said by the job that Ctrl-C is for
    terminal.expect("sleeping")
    terminal.type("\x03")
    terminal.type("exit 7\n")
    assert terminal.wait() == 7


def test_terminal_modes_reach_the_environment(laboratory: Laboratory) -> None:
    """Bytes are not altered on the way: no line editor, no newline conversion but the terminal's own."""
    terminal = Terminal(laboratory.gateway.ssh("alice", laboratory.alice, "stty -a", before=["-tt"]))
    terminal.expect("speed")
    terminal.expect("echo")
    assert terminal.wait() == 0


def test_ten_commands_at_once_do_not_mix(laboratory: Laboratory) -> None:
    """Each of ten parallel connections gets its own output and code."""

    def one(number: int) -> tuple[int, bytes]:
        done = laboratory.gateway.run("alice", laboratory.alice, f"sleep 0.1; echo n{number}; exit {number}")
        return done.returncode, done.stdout

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(one, range(10)))
    assert results == [(number, b"n%d\n" % number) for number in range(10)]


@pytest.mark.attack("D2", "many sessions on one connection")
def test_control_master_carries_many_sessions(laboratory: Laboratory, tmp_path: Path) -> None:
    """Eight sessions share one connection, and it is logged in once."""
    gateway, before = laboratory.gateway, laboratory.gateway.recorder.codes().count("login.allowed")
    master = subprocess.Popen(
        gateway.ssh("alice", laboratory.alice, before=["-N", "-M", "-S", f"{tmp_path}/c"]), stdin=subprocess.DEVNULL
    )
    try:
        poll((tmp_path / "c").exists, "the control socket")
        with ThreadPoolExecutor(8) as pool:
            share = ["-S", f"{tmp_path}/c"]
            results = list(
                pool.map(lambda n: gateway.run("alice", laboratory.alice, f"echo {n}", before=share), range(8))
            )
    finally:
        master.terminate()
        master.wait(10)
    assert [done.stdout for done in results] == [b"%d\n" % number for number in range(8)]
    assert gateway.recorder.codes().count("login.allowed") == before + 1


def copy(laboratory: Laboratory, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    gateway = laboratory.gateway
    program, *rest = arguments
    command = [program, *gateway.options(laboratory.alice), "-P", str(gateway.port), *rest]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.attack("D2", "`scp`, also `-O`")
@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_copies_both_ways(laboratory: Laboratory, tmp_path: Path, protocol: str) -> None:
    """With the SFTP protocol and with the old one."""
    (tmp_path / "up").write_bytes(BINARY)
    up = copy(laboratory, "scp", protocol, str(tmp_path / "up"), "alice@127.0.0.1:scp-file")
    assert up.returncode == 0, up.stderr
    down = copy(laboratory, "scp", protocol, "alice@127.0.0.1:scp-file", str(tmp_path / "down"))
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "down").read_bytes() == BINARY


@pytest.mark.attack("D2", "sftp: put, resume, get")
def test_sftp_puts_resumes_and_gets(laboratory: Laboratory, tmp_path: Path) -> None:
    """A transfer cut in half is resumed and compares equal."""
    (tmp_path / "whole").write_bytes(BINARY)
    home = next(iter(laboratory.gateway.environments.by_ref.values())).home
    (home / "sftp-file").write_bytes(BINARY[: 1 << 20])
    os.chown(home / "sftp-file", home.stat().st_uid, home.stat().st_gid)
    batch = tmp_path / "batch"
    batch.write_text(f"reput {tmp_path}/whole sftp-file\nget sftp-file {tmp_path}/back\n")
    done = copy(laboratory, "sftp", "-b", str(batch), "alice@127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_bytes() == BINARY


@pytest.mark.attack("D2", "rsync, there and back")
def test_rsync_synchronises_a_tree(laboratory: Laboratory, tmp_path: Path) -> None:
    """Up and down again, byte for byte."""
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / "tree" / f"f{number}").write_bytes(BINARY[number * 1000 : number * 3000])
    gateway = laboratory.gateway
    shell = " ".join(["ssh", *gateway.options(laboratory.alice), "-p", str(gateway.port)])
    for source, target in ((f"{tmp_path}/tree", "alice@127.0.0.1:"), ("alice@127.0.0.1:tree", f"{tmp_path}/back")):
        subprocess.run(["rsync", "-a", "-e", shell, source, target], check=True, timeout=60, capture_output=True)
    compared = subprocess.run(["diff", "-r", f"{tmp_path}/tree", f"{tmp_path}/back/tree"], check=False, timeout=60)
    assert compared.returncode == 0


@pytest.mark.attack("D4", "another subsystem than sftp, through `-s`")
def test_a_refused_subsystem_fails(laboratory: Laboratory) -> None:
    """Only sftp is a subsystem."""
    done = laboratory.gateway.run("alice", laboratory.alice, "netconf", before=["-s"])
    assert done.returncode != 0
    assert b"subsystem request failed" in done.stderr


def test_a_locale_is_there_and_the_clients_own_wins(laboratory: Laboratory) -> None:
    """C.UTF-8 where the client sends none; LC_* is what this policy permits, LANG is not."""
    gateway = laboratory.gateway
    show = 'echo "$LANG|$LC_TIME"'
    assert gateway.run("alice", laboratory.alice, show).stdout == b"C.UTF-8|\n"
    sent = ("-o", "SetEnv=LANG=xx LC_TIME=de_DE.UTF-8")
    assert gateway.run("alice", laboratory.alice, show, before=sent).stdout == b"C.UTF-8|de_DE.UTF-8\n"


@pytest.mark.attack("D3", "variables that the policy does not name, through SendEnv")
def test_only_allowed_variables_pass(laboratory: Laboratory) -> None:
    """LC_* passes under this policy; what changes how programs are loaded does not."""
    variables = {"PATH": os.environ["PATH"], "LC_TEST": "yes", "LD_PRELOAD_X": "no", "BASH_ENV": "/tmp/evil"}
    before = ["-o", "SendEnv=LC_TEST LD_PRELOAD_X BASH_ENV"]
    done = laboratory.gateway.run("alice", laboratory.alice, "env", before=before, env=variables)
    assert b"LC_TEST=yes" in done.stdout
    assert b"LD_PRELOAD_X" not in done.stdout
    assert b"BASH_ENV" not in done.stdout


def test_what_the_policy_permits_arrives(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's sshd takes what the gateway sends, and its own locale and time zone do not cover the client's."""
    monkeypatch.setattr(laboratory.gateway, "policy", allow_all)
    sent = {"TZ": "Asia/Tokyo", "LANG": "C", "LC_TIME": "C", "WANDB_MODE": "offline"}
    before = ["-o", f"SendEnv={' '.join(sent)}"]
    command = 'echo "$TZ|$LANG|$LC_TIME|$WANDB_MODE"'
    variables = {"PATH": os.environ["PATH"], **sent}
    for asked in (command, f"bash -lc '{command}'"):
        done = laboratory.gateway.run("alice", laboratory.alice, asked, before=before, env=variables)
        assert done.stdout.decode().strip() == "|".join(sent.values()), done.stderr


def test_what_no_client_sends_is_the_environments(laboratory: Laboratory) -> None:
    """Commands and login shells have the image's locale and time zone then."""
    variables = {"PATH": os.environ["PATH"]}
    for command in ("echo $LANG,$TZ", "bash -lc 'echo $LANG,$TZ'"):
        done = laboratory.gateway.run("alice", laboratory.alice, command, env=variables)
        assert done.stdout == b"C.UTF-8,Etc/UTC\n", done.stderr


@pytest.mark.attack("C14", "`-A` where no policy permits it")
def test_agent_forwarding_is_off_by_default(laboratory: Laboratory, tmp_path: Path) -> None:
    """The environment gets no agent socket; a terminal is told the rule once, and a program's stderr nothing."""
    gateway, command = laboratory.gateway, "echo [$SSH_AUTH_SOCK]"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        poll((tmp_path / "agent").exists, "the agent")
        before = ["-A", "-o", f"IdentityAgent={tmp_path}/agent"]
        quiet = gateway.run("alice", laboratory.alice, command, before=before)
        verbose = gateway.run("alice", laboratory.alice, command, before=["-v", *before])
        first, second = (gateway.run("alice", laboratory.alice, command, before=["-tt", *before]) for _ in range(2))
    finally:
        agent.terminate()
        agent.wait(10)
    assert (quiet.stdout, quiet.stderr) == (b"[]\n", b"")
    assert b"agent forwarding refused" in verbose.stderr
    assert b"agent forwarding refused" in first.stdout + first.stderr
    assert b"lab.default" in first.stdout + first.stderr
    assert b"agent forwarding" not in second.stdout + second.stderr
    assert second.stdout == b"[]\r\n"


def test_a_session_is_journaled_with_its_command_and_code(laboratory: Laboratory) -> None:
    """Opened and closed stand in the journal with kind, command, code and bytes."""
    laboratory.gateway.run("bob", laboratory.bob, "echo journal-me; exit 3")
    recorder = laboratory.gateway.recorder
    opened = [event for event in recorder.events if event.detail.get("command") == "echo journal-me; exit 3"]
    assert [(event.code, event.actor.name) for event in opened] == [("session.opened", "bob")]
    closed = poll(
        lambda: [e for e in recorder.events if e.detail.get("exit_code") == 3 and e.actor.name == "bob"],
        "the record of the end",
    )
    assert closed[-1].detail["sent_bytes"] == len("journal-me\n")
