"""`ssh -t alice@gateway devgw-top` by a real OpenSSH client, on a terminal and without one."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from gateway.ssh.session_channel.own_program import ENTER, LEAVE
from tests.e2e.conftest import ServedUsers
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.page_site import POLICY, add, begin, records

NO_EXEC = """
[roles.looker]
sessions = ["shell"]
[[grants]]
users = ["eve"]
roles = ["looker"]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    policy = POLICY.replace('default_roles = ["member"]', "default_roles = []") + NO_EXEC
    policy += '[[grants]]\nusers = ["alice"]\nroles = ["member"]\n'
    served = begin(tmp_path_factory.mktemp("gw"), ("alice", "bob", "eve"), policy)
    try:
        add(served, "alice+second")
        yield served
    finally:
        served.stop()


class Screen:
    """A person's terminal with ssh on it."""

    def __init__(self, gateway: GatewayProcess, user: str, *arguments: str, columns: int = 100, rows: int = 24) -> None:
        self.near, far = pty.openpty()
        self.resize(columns, rows)
        command = gateway.ssh_command(user, *arguments)
        command[1:1] = ["-t"]
        self.client = subprocess.Popen(command, stdin=far, stdout=far, stderr=far, start_new_session=True)
        os.close(far)
        self.shown = bytearray()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.near, keys)

    def shows(self, text: bytes, after: int = 0) -> bool:
        self.read()
        return text in self.shown[after:]

    def read(self) -> None:
        """Take what has come."""
        with suppress(OSError):  # the far end is closed
            while select.select([self.near], [], [], 0)[0] and (block := os.read(self.near, 65536)):
                self.shown += block

    def ended(self) -> int:
        """Wait for the client's end; return its exit status."""
        poll(lambda: self.read() or self.client.poll() is not None, "the client's end", 60)
        self.read()
        return self.client.wait(timeout=1)


@contextmanager
def screen(gateway: GatewayProcess, user: str, *arguments: str, **size: int) -> Iterator[Screen]:
    one = Screen(gateway, user, *arguments, **size)
    try:
        yield one
    finally:
        one.client.kill()
        one.client.wait(timeout=60)
        os.close(one.near)


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_it_lives_on_a_terminal_until_a_key_ends_it(gateway: GatewayProcess, key: bytes) -> None:
    """Drawn again and again on the other screen, which is given back; the user's own environments, nobody else's."""
    with screen(gateway, "alice", "devgw-top") as terminal:
        poll(lambda: terminal.shows(b"alice+second"), "the first picture")
        mark = len(terminal.shown)
        poll(lambda: terminal.shows(b"CONNECTION", mark), "the next picture")
        terminal.type(key)
        assert terminal.ended() == 0
    assert terminal.shown.count(ENTER) == terminal.shown.count(LEAVE) == 1
    assert b"bob" not in terminal.shown


def test_another_size_is_drawn_at_once(gateway: GatewayProcess) -> None:
    """Lines are cut where the terminal ends."""
    with screen(gateway, "alice", "devgw-top") as terminal:
        poll(lambda: terminal.shows(b"PROCESSORS"), "the first picture")
        terminal.resize(20, 10)
        terminal.client.send_signal(signal.SIGWINCH)
        poll(lambda: terminal.shows(b"") and b"PROCESSORS" not in last_picture(terminal), "the narrow picture")
        assert all(len(line) <= 20 for line in last_picture(terminal).split(b"\r\n"))
        terminal.type(b"q")
        assert terminal.ended() == 0


def last_picture(terminal: Screen) -> bytes:
    """Return the lines of the last picture that is whole."""
    pictures = bytes(terminal.shown).split(b"\x1b[H")[1:]
    whole = [one.partition(b"\x1b[J")[0] for one in pictures if b"\x1b[J" in one]
    return whole[-1].replace(b"\x1b[K", b"")


def test_without_a_terminal_it_is_written_once(gateway: GatewayProcess) -> None:
    """As lines without an escape, or as JSON; what is stopped is not woken for it, and the journal has the command."""
    plain = gateway.ssh("alice", "devgw-top")
    assert plain.returncode == 0
    assert b"\x1b" not in plain.stdout
    assert b"alice+second" in plain.stdout
    told = json.loads(gateway.ssh("alice", "devgw-top -o json").stdout)
    assert [(one["handle"], one["state"]) for one in told["environments"]] == [
        ("alice", "stopped"),
        ("alice+second", "stopped"),
    ]
    assert {one["environment"] for one in told["connections"]} == {"alice"}
    assert records(gateway, "session.opened")[-1]["detail"]["command"] == "devgw-top -o json"
    poll(lambda: len(records(gateway, "session.closed")) == len(records(gateway, "session.opened")), "the closing")
    assert records(gateway, "environment.woken") == []


def test_what_it_does_not_know_is_said_with_a_hint(gateway: GatewayProcess) -> None:
    refused = gateway.ssh("alice", "devgw-top --all")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"devgw-top does not know '--all'" in refused.stderr
    assert b"-o json" in refused.stderr


def test_it_is_a_command_like_any_other_to_the_policy(gateway: GatewayProcess) -> None:
    """Who may run none sees none."""
    refused = gateway.ssh("eve", "devgw-top")
    assert refused.returncode != 0
    assert b"refused" in refused.stderr
    assert refused.stdout == b""


def test_who_is_shut_out_sees_nothing_further_but_the_reason(gateway: GatewayProcess) -> None:
    with screen(gateway, "bob", "devgw-top") as terminal:
        poll(lambda: terminal.shows(b"PROCESSORS"), "the first picture")
        gateway.devgw("user", "disable", "bob")
        began = time.monotonic()
        assert terminal.ended() != 0
        assert time.monotonic() - began < 10
    assert b"the user is disabled" in terminal.shown
    gateway.devgw("user", "enable", "bob")


def test_a_right_that_is_taken_away_ends_it_with_the_gateways_own_status(gateway: GatewayProcess) -> None:
    """The reason stands on the user's own screen; the journal has it too."""
    policy = gateway.root / "etc" / "policy.toml"
    before = policy.read_text()
    with screen(gateway, "alice", "devgw-top") as terminal:
        poll(lambda: terminal.shows(b"PROCESSORS"), "the first picture")
        policy.write_text(before.replace('sessions = ["shell", "exec", "sftp"]', 'sessions = ["shell", "sftp"]'))
        try:
            assert terminal.ended() == 125
        finally:
            policy.write_text(before)
    assert b"devgw: " in terminal.shown.partition(LEAVE)[2]
    closed = poll(lambda: [one for one in records(gateway, "session.closed") if one["detail"].get("exit_code") == 125],
                  "the closing")  # fmt: skip
    assert closed[-1]["actor"]["name"] == "alice"


@pytest.mark.engine
def test_what_runs_is_measured(served_users: ServedUsers) -> None:
    """Processors and memory by the engine's own account: a process that computes is seen."""
    gateway = served_users.gateway
    gateway.ssh("bob", "(setsid timeout 60 sh -c 'while :; do :; done' >/dev/null 2>&1 &)")
    told = json.loads(gateway.ssh("bob", "devgw-top -o json").stdout)
    [environment] = told["environments"]
    assert environment["state"] == "running"
    assert environment["processors"] > 0.05
    assert environment["memory_used_bytes"] > 1 << 20
    gateway.ssh("bob", "pkill -f 'while :'")
