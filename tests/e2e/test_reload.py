"""A policy file that changes under a running gateway: who is still allowed notices nothing, who is not is cut."""

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.audit.policy_history import in_force_between
from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from gateway.audit.verify import verify
from gateway.background.access_watch import AccessWatch
from gateway.background.session_publisher import SessionPublisher
from gateway.config import load_settings
from gateway.process.ownership import this_process
from tests.support.ssh_clients import poll
from tests.support.ssh_gateway import TestGateway

WITHIN_SECONDS = 2.0
OPEN = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
"""
WITHOUT_BOB = (
    OPEN
    + """
[roles.nobody]
deny = { login = true }
[[grants]]
users = ["bob"]
roles = ["nobody"]
"""
)
NOISE_BYTES = 64 << 20


class Site:
    """A gateway whose policy is a file, watched as `devgw serve` watches it."""

    def __init__(self, root: Path, text: str) -> None:
        for name in ("config", "state", "run"):
            (root / name).mkdir()
        self.file = root / "config" / "policy.toml"
        self.file.write_text(text)
        self.app = App(load_settings({f"DEVGW_{name.upper()}_DIR": str(root / name) for name in ("config", "state")}))
        self.app.duties.policy_reloader.begin()
        self.app.duties.journal_maintenance.begin()
        self.gateway = TestGateway(root, self.app.policy.decide)
        self.gateway.start()
        assert self.gateway.server is not None
        publisher = SessionPublisher(self.app.live_sessions, self.gateway.server.registry, this_process())
        app, reloader = self.app, self.app.duties.policy_reloader
        watch = AccessWatch(app.database.revision, app.policy, reloader, self.gateway.server, publisher)
        self.watching = asyncio.run_coroutine_threadsafe(watch.run(), self.gateway.loop)

    def replace_policy(self, text: str) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.file)

    def records(self, action: str) -> list[Record]:
        return list(stream(self.app.settings.journal_dir, Filter(action=action)))

    def close(self) -> None:
        self.watching.cancel()
        self.gateway.stop()
        self.app.duties.journal_maintenance.end()
        self.app.journal.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, OPEN)
    yield made
    made.close()


def start(site: Site, user: str, key: Path, command: str) -> "subprocess.Popen[bytes]":
    argv = site.gateway.ssh(user, key, command)
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.attack("F3", "a policy file that shuts bob out while alice downloads: her bytes are those that were sent")
def test_a_reload_cuts_who_lost_access_and_leaves_a_transfer_byte_identical(site: Site) -> None:
    """Bob is shut out while alice downloads: he is told within 2 s, her bytes are those that were sent."""
    alice, bob = site.gateway.add_user("alice"), site.gateway.add_user("bob")
    noise = f"openssl enc -aes-128-ctr -K {'0' * 32} -iv {'0' * 32} -in /dev/zero 2>/dev/null | head -c {NOISE_BYTES}"
    expected = hashlib.sha256(
        subprocess.run(["sh", "-c", noise], capture_output=True, check=False, timeout=60).stdout
    ).hexdigest()
    transfer, session = start(site, "alice", alice, noise), start(site, "bob", bob, "echo in; sleep 60")
    assert transfer.stdout is not None
    assert session.stdout is not None
    digest = hashlib.sha256(transfer.stdout.read(1 << 20))
    assert session.stdout.readline() == b"in\n"

    site.replace_policy(WITHOUT_BOB)
    began = time.monotonic()
    _, told = session.communicate(timeout=10)
    assert time.monotonic() - began < WITHIN_SECONDS
    assert b"the role 'nobody' denies access" in told
    for block in iter(lambda: transfer.stdout.read(1 << 20) if transfer.stdout else b"", b""):
        digest.update(block)
    assert digest.hexdigest() == expected
    assert transfer.wait(10) == 0
    loaded = site.records("policy.loaded")
    assert "bob" in str(loaded[-1].detail["changes"])
    now = datetime.now(UTC)
    settings = site.app.settings
    kept = in_force_between(settings.journal_dir, settings.policies_dir, now, now)
    assert kept[-1].digest == hashlib.sha256(WITHOUT_BOB.encode()).hexdigest()


FAULTY = {
    "mistyped": (OPEN.replace("permit_open", "permitopen"), "did you mean 'permit_open'?"),
    "fails its own test": (OPEN + '[[tests]]\nuser = "x"\nallow = ["egress internet"]\n', "its own test fails"),
    "another notebook port": (OPEN.replace("version = 1", "version = 1\nnotebook_port = 9"), "server.notebook_port"),
}


@pytest.mark.attack("F3", "a faulty policy file under live sessions")
@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_policy_is_refused_and_the_old_one_stays(site: Site, fault: str) -> None:
    """The journal says why; sessions go on and new ones begin; a good one counts again."""
    text, reason = FAULTY[fault]
    alice = site.gateway.add_user("alice")
    session = start(site, "alice", alice, "cat")
    site.replace_policy(text)
    refused = poll(lambda: site.records("policy.refused"), "the refusal")
    assert reason in refused[0].reason
    assert site.gateway.run("alice", alice, "echo new").stdout == b"new\n"
    assert session.communicate(b"still here", timeout=10)[0] == b"still here"
    site.replace_policy(WITHOUT_BOB)
    poll(lambda: len(site.records("policy.loaded")) == 2, "the good policy")


@pytest.mark.attack("F4", "access whose time ends under a session")
def test_access_that_ends_by_its_time_ends_within_two_seconds(tmp_path: Path) -> None:
    """Nothing changes but the time; another user, whose access has no end, goes on."""
    until = datetime.now(UTC) + timedelta(seconds=6)
    grant = f'[[grants]]\nusers = ["alice"]\nroles = ["member"]\nuntil = {until.isoformat()}\n'
    site = Site(tmp_path, OPEN + grant)
    try:
        alice, bob = site.gateway.add_user("alice"), site.gateway.add_user("bob")
        session, other = start(site, "alice", alice, "echo in; sleep 60"), start(site, "bob", bob, "cat")
        assert session.stdout is not None
        assert session.stdout.readline() == b"in\n"
        _, told = session.communicate(timeout=20)
        late = (datetime.now(UTC) - until).total_seconds()
        assert 0 <= late < WITHIN_SECONDS
        assert b"no grant is valid at this time" in told
        assert other.communicate(b"still here", timeout=10)[0] == b"still here"
    finally:
        site.close()


class ShiftedClock(datetime):
    """The time of day as a machine shows it whose clock was set."""

    offset = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime is all anybody needs
        return datetime.now(tz) + cls.offset


@pytest.mark.attack("F8", "the host's clock jumps over the end of somebody's access, and back before its beginning")
def test_a_clock_that_jumps_ends_what_its_time_no_longer_permits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice's access is for two days, bob's has no end: he notices nothing, and the journal stays whole."""
    now = datetime.now(UTC)
    begins, ends = (now - timedelta(days=1)).isoformat(), (now + timedelta(days=1)).isoformat()
    grant = f'[[grants]]\nusers = ["alice"]\nroles = ["member"]\nfrom = {begins}\nuntil = {ends}\n'
    for module in [module for name, module in sys.modules.items() if name.startswith("gateway.")]:
        if getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", ShiftedClock)
    site = Site(tmp_path, OPEN + grant)
    try:
        alice, bob = site.gateway.add_user("alice"), site.gateway.add_user("bob")
        other = start(site, "bob", bob, "cat")
        for jump in (timedelta(days=2), timedelta(days=-2)):
            monkeypatch.setattr(ShiftedClock, "offset", timedelta())
            session = start(site, "alice", alice, "echo in; sleep 60")
            assert session.stdout is not None
            assert session.stdout.readline() == b"in\n"
            time.sleep(1.2)  # the gateway has looked at the clock
            monkeypatch.setattr(ShiftedClock, "offset", jump)
            began = time.monotonic()
            _, told = session.communicate(timeout=20)
            assert time.monotonic() - began < WITHIN_SECONDS
            assert b"no grant is valid at this time" in told
            assert site.gateway.run("alice", alice, "true").returncode == 255
        assert other.communicate(b"still here", timeout=10)[0] == b"still here"
        assert verify(site.app.settings.journal_dir).ok
    finally:
        site.close()


def test_a_run_ends_with_a_signed_head_and_a_whole_journal(site: Site) -> None:
    """What was written while it ran can be verified; the key is there from the first start."""
    report = verify(site.app.settings.journal_dir)
    assert report.ok
    assert site.app.head_key.public.read_text().startswith(f"{site.app.settings.journal_name}+")
