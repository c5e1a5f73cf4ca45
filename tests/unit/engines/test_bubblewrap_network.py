"""The network stack's command line, and what is said when it does not start."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engines import packet_filter
from gateway.engines.bubblewrap import network
from gateway.errors import EngineError
from gateway.model import Egress
from tests.support.processes import running

_BANNER_THEN_FAULT = """#!/bin/sh
echo 'sent tapfd=5 for eth0'
echo '* MTU:             1500'
echo 'WARNING: Support for seccomp is experimental' >&2
echo 'setegid(0): Invalid argument' >&2
echo '* Recommended IP:  10.0.2.100'
exit 1
"""


def _slirp(directory: Path, content: str) -> network.Stack:
    program = directory / "slirp4netns"
    program.write_text(content)
    program.chmod(0o755)
    return network.Stack(str(program), "10.130.1", "internet")


@pytest.fixture
def sandbox() -> Iterator[int]:
    """A process in a user and a network namespace of its own."""
    command = ["unshare", "--user", "--map-current-user", "--net", "--", "sh", "-c", "echo up; exec sleep 100"]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid


def test_what_the_stack_said_last_on_stderr_is_the_cause(tmp_path: Path, sandbox: int) -> None:
    """slirp4netns prints a banner on stdout, which hid the reason."""
    with pytest.raises(EngineError) as caught:
        network.start(_slirp(tmp_path, _BANNER_THEN_FAULT), sandbox, ids=None)
    assert caught.value.message == "the network stack did not start: setegid(0): Invalid argument"


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_root_starts_slirp4netns_itself_whatever_the_device_lets_others(
    mode: int, tmp_path: Path, sandbox: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sandbox calls setegid(0), which a plain user's namespace refuses: /dev/net/tun is 0666 under systemd."""
    tun = tmp_path / "tun"
    tun.touch()
    tun.chmod(mode)
    monkeypatch.setattr(network, "_TUN", tun)
    started: list[object] = []
    popen = subprocess.Popen

    def spied(*arguments: object, **options: object) -> object:
        started.extend((options.get("user"), options.get("group")))
        return popen(["true"], stdin=subprocess.DEVNULL)

    monkeypatch.setattr(subprocess, "Popen", spied)
    with pytest.raises(EngineError):
        network.start(_slirp(tmp_path, "#!/bin/sh\n"), sandbox, ids=(20001, 20001))
    assert started == [None, None]


def test_pasta_that_ends_at_once_is_no_network(tmp_path: Path, sandbox: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for started, and its sandbox went on without a way out."""
    program = tmp_path / "pasta"
    program.write_text("#!/bin/sh\necho 'Failed to send 47 bytes to syslog' >&2\necho 'no namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(network, "_DEFAULT_ROUTE", "no line has this")
    with pytest.raises(EngineError, match=r"did not start: no namespace$"):
        network.start(network.Stack(str(program), "10.130.1", "internet"), sandbox, ids=None)


@pytest.mark.parametrize("way", ["start", "confine"])
def test_the_network_of_the_host_is_never_closed(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that has ended, and whose number means another process: the rules once cut the host itself off."""
    ran: list[object] = []
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **_options: ran.append(arguments))
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_options: ran.append(arguments))
    slirp, ours = _slirp(tmp_path, "#!/bin/sh\n"), os.open("/proc/self/ns/net", os.O_RDONLY)
    ways = {
        "start": lambda: network.start(slirp, os.getpid(), ids=None),
        "confine": lambda: packet_filter.confine_namespace(ours, "eth0", Egress.INTERNET, "10.130.1.3"),
    }
    with pytest.raises(EngineError, match="the network of the host") as caught:
        ways[way]()
    os.close(ours)
    assert caught.value.code == "egress.unenforceable"
    assert not ran


@pytest.mark.parametrize(("uid", "confined"), [(0, True), (1000, False)])
def test_only_root_asks_slirp4netns_for_its_sandbox(uid: int, confined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain user's slirp4netns would die in it."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    command = network.Stack("/usr/bin/slirp4netns", "10.130.1", "internet").command(3, 4, 5, 6)
    assert ("--enable-sandbox" in command) is confined
    assert "--enable-seccomp" in command
