"""Who gets in, who does not, and what each is told."""

import socket
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from policies.requests import Decision, LoginRequest, Request
from tests.e2e.conftest import Laboratory
from tests.support.ssh_gateway import lab_policy


@pytest.mark.attack("A1", "`none` asks for the methods: publickey and nothing else is named")
def test_only_publickey_is_offered(laboratory: Laboratory) -> None:
    """Invariant 2: no password, no keyboard-interactive, no host-based login is even named."""
    done = laboratory.gateway.run(
        "alice", laboratory.alice, "true", before=["-o", "PreferredAuthentications=none", "-v"]
    )
    assert b"Authentications that can continue: publickey\r\n" in done.stderr
    assert done.returncode == 255


@pytest.mark.attack("A2", "root, an unknown user, another's name, an impossible name: told the same")
@pytest.mark.parametrize("handle", ["nobody-here", "root", "bob", "Alice", "alice:x", "../alice", "alice+", "a" * 300])
def test_refusals_do_not_differ(laboratory: Laboratory, handle: str) -> None:
    """Unknown user, root, another's name and impossible names are told the same."""
    done = laboratory.gateway.run(handle, laboratory.alice, "true")
    assert done.returncode == 255
    assert done.stderr.strip().endswith(b"Permission denied (publickey)."), done.stderr


@pytest.mark.attack("A2", "a known and an unknown name: refused in the same time")
def test_refusals_take_the_same_time(laboratory: Laboratory) -> None:
    """The time of a refusal says nothing about whether the user exists."""
    key = laboratory.gateway.make_key("stranger")

    def seconds(handle: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            laboratory.gateway.run(handle, key, "true")
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    assert abs(seconds("alice") - seconds("nobody-here")) < 0.05


@pytest.mark.attack("A5", "many keys on one connection: cut at MaxAuthTries, and nobody is banned")
def test_the_thirteenth_key_is_not_looked_at(laboratory: Laboratory) -> None:
    """MaxAuthTries cuts a connection that offers twelve wrong keys before the right one; and bans nobody."""
    gateway = laboratory.gateway
    keys = [gateway.make_key(f"many-{number}") for number in range(12)]
    identities = [part for key in keys for part in ("-i", str(key))]
    done = gateway.run("alice", laboratory.alice, "true", before=identities)
    assert done.returncode == 255
    assert b"Too many authentication failures" in done.stderr
    assert gateway.run("alice", laboratory.alice, "true").returncode == 0


@pytest.mark.attack("A3", "a right key under a wrong name: one event, with the keys offered")
def test_a_refused_connection_is_one_event(laboratory: Laboratory) -> None:
    """However many keys it offered, with the user name escaped by nobody but the journal."""
    mark = laboratory.gateway.recorder.mark()
    laboratory.gateway.run("carol", laboratory.alice, "true")
    event = laboratory.gateway.recorder.find("login.refused", mark)
    assert event.detail["user"] == "carol"
    assert "SHA256:" in str(event.detail["offered_keys"])
    about_carol = [event.code for event in laboratory.gateway.recorder.events[mark:] if "carol" in str(event)]
    assert about_carol == ["login.refused"]


def test_a_denied_login_is_told_why(laboratory: Laboratory) -> None:
    """Someone who has proven their key learns rule and reference; the journal has the same reference."""
    gateway, mark = laboratory.gateway, laboratory.gateway.recorder.mark()

    def closed(request: Request) -> Decision:
        if isinstance(request, LoginRequest):
            return Decision(False, "lab.hours", "the laboratory is closed at night")
        return lab_policy(request)

    gateway.policy = closed
    try:
        done = gateway.run("alice", laboratory.alice, "true")
    finally:
        gateway.policy = lab_policy
    event = gateway.recorder.find("login.denied", mark)
    assert b"the laboratory is closed at night" in done.stderr
    assert event.reference.encode() in done.stderr
    assert done.returncode == 255


@pytest.mark.attack("A7", "`ssh-rsa`: a signature with SHA-1")
def test_a_sha1_signature_is_refused(laboratory: Laboratory, tmp_path: Path) -> None:
    """`ssh-rsa` is RSA with SHA-1; the same key signs in with SHA-2."""
    gateway = laboratory.gateway
    key = gateway.make_key("rsa", "-t", "rsa", "-b", "3072")
    gateway.directory.add(
        "alice", laboratory.alice.with_suffix(".pub").read_text(), key.with_suffix(".pub").read_text()
    )
    assert gateway.run("alice", key, "true").returncode == 0
    old = ["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"]
    assert gateway.run("alice", key, "true", before=old).returncode == 255


@pytest.mark.parametrize(
    "option",
    ["Ciphers=aes128-cbc", "MACs=hmac-sha1", "KexAlgorithms=diffie-hellman-group14-sha1", "HostKeyAlgorithms=ssh-rsa"],
)
def test_old_algorithms_are_not_spoken(laboratory: Laboratory, option: str) -> None:
    """A client that knows nothing better is turned away before login."""
    ciphers = ["-o", "Ciphers=aes128-ctr"] if option.startswith("MACs") else []
    done = laboratory.gateway.run("alice", laboratory.alice, "true", before=["-o", option, *ciphers])
    assert done.returncode == 255
    assert b"no matching" in done.stderr


def test_the_key_that_logged_in_is_noted(laboratory: Laboratory) -> None:
    """Last use is recorded for the access review, for the key that signed."""
    laboratory.gateway.run("bob", laboratory.bob, "true")
    fingerprint = laboratory.gateway.directory.keys_by_user["bob"][0].fingerprint
    assert ("bob", fingerprint) in laboratory.gateway.directory.used


def test_an_environment_that_does_not_exist_is_named(laboratory: Laboratory) -> None:
    """alice+nothing logs in as alice and is told that there is no such environment."""
    done = laboratory.gateway.run("alice+nothing", laboratory.alice, "true")
    assert done.returncode == 125
    assert b"there is no environment 'alice+nothing'" in done.stderr


def test_garbage_is_cut_and_harms_nobody(laboratory: Laboratory) -> None:
    """HTTP, an endless line, a huge packet length and random bytes each end their own connection."""
    for hostile in (b"GET / HTTP/1.1\r\n\r\n", b"x" * 70_000, b"SSH-2.0-x\r\n" + b"\xff\xff\xff\xf0" + b"A" * 9000):
        with socket.create_connection(("127.0.0.1", laboratory.gateway.port), 5) as sock:
            sock.settimeout(10)
            try:
                sock.sendall(hostile)
                while sock.recv(65536):
                    pass
            except ConnectionError:
                pass
    assert laboratory.gateway.run("alice", laboratory.alice, "true").returncode == 0


def test_ssh_keyscan_sees_one_host_key(laboratory: Laboratory) -> None:
    """The gateway has the key it was given, and no other type."""
    port = str(laboratory.gateway.port)
    done = subprocess.run(["ssh-keyscan", "-p", port, "127.0.0.1"], capture_output=True, check=False, timeout=30)
    lines = [line for line in done.stdout.decode().splitlines() if not line.startswith("#")]
    assert [line.split(" ", 1)[1] for line in lines] == [" ".join(laboratory.gateway.host_key_line.split()[:2])]
