"""What the gateway does for its journal by itself: policies kept, heads signed, the database held against it."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.audit.event import Event
from gateway.audit.head_key import HeadKey, read_verifier
from gateway.audit.heads import last_note, open_head
from gateway.audit.journal import Journal
from gateway.audit.read import Filter, stream
from gateway.audit.record import Record
from gateway.audit.segments import segments
from gateway.audit.verify import verify
from gateway.config import load_settings
from gateway.errors import ConfigError, JournalError
from gateway.model import GATEWAY
from policies.diff import diff
from tests.support.gateway_process import poll

POLICY = 'version = 1\ndefault_roles = ["member"]\n[roles.member]\nsessions = ["shell"]\n'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """The directories of a gateway with a policy and a place for heads."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "policy.toml").write_text(POLICY)
    (tmp_path / "config" / "devgw.toml").write_text(f'[audit]\nhead_file = "{tmp_path}/heads"\n')
    return tmp_path


def make_app(site: Path, **variables: str) -> App:
    directories = {f"DEVGW_{name.upper()}_DIR": str(site / name) for name in ("config", "state", "run")}
    return App(load_settings(directories | variables))


def run(app: App) -> None:
    """Begin and end once, as one run of the gateway does."""
    app.duties.policy_reloader.begin()
    app.duties.journal_maintenance.begin()
    app.duties.journal_maintenance.end()
    app.journal.close()


def records(app: App, action: str) -> list[Record]:
    return list(stream(app.settings.journal_dir, Filter(action=action)))


def test_each_start_records_the_policy_and_what_changed_since_the_last(site: Path) -> None:
    """Also what was changed while no gateway ran."""
    run(make_app(site))
    changed = POLICY.replace('"shell"', '"shell", "exec"')
    (site / "config" / "policy.toml").write_text(changed)
    app = make_app(site)
    run(app)
    first, second = records(app, "policy.loaded")
    assert first.detail["change_count"] == 0
    assert second.detail["changes"] == "* gains: open exec sessions"
    assert second.detail["sha256"] == sha256(changed.encode()).hexdigest()
    assert (app.settings.policies_dir / f"{second.detail['sha256']}.toml").read_text() == changed


def test_a_run_hands_on_a_head_that_a_copy_is_verified_by(site: Path) -> None:
    """With the public key alone."""
    app = make_app(site)
    run(app)
    head = open_head(last_note((site / "heads").read_text()), read_verifier(app.head_key.public))
    report = verify(app.settings.journal_dir, head)
    assert report.ok
    assert report.head_checked


def test_what_was_sealed_is_indexed(site: Path) -> None:
    """Before anybody asks; what belongs to no segment goes."""
    app = make_app(site)
    journal = Journal(app.settings.journal_dir, segment_bytes=1000)
    for _ in range(10):
        journal.append(Event("gateway.started", GATEWAY))
    journal.close()
    index = app.settings.journal_dir / "index"
    index.mkdir()
    (index / "segment-000000009999.idx").write_bytes(b"")
    app.duties.journal_maintenance.begin()
    sealed = [one.path.stem for one in segments(app.settings.journal_dir)[:-1]]
    poll(lambda: [path.stem for path in sorted(index.iterdir())] == sealed, "the indexes")
    app.duties.journal_maintenance.end()
    app.journal.close()
    assert len(sealed) > 1


def test_a_key_put_into_the_database_is_noticed_at_the_next_start(site: Path) -> None:
    """Log and journal say whose."""
    app = make_app(site)
    run(app)
    assert app.users.all() == []
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    with sqlite3.connect(site / "state" / "devgw.db") as database:
        database.execute("INSERT INTO users (name, uid, created_at) VALUES ('mallory', 9, ?)", (now,))
        row = ("mallory", "SHA256:" + "m" * 43, "ssh-ed25519", 256, "ssh-ed25519 AAAA", "", now)
        names = "user, fingerprint, algorithm, bits, line, comment, added_at"
        database.execute(f"INSERT INTO public_keys ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - a constant
    database.close()
    again = make_app(site)
    run(again)
    (found,) = records(again, "store.contradicted")
    assert (found.detail["kind"], found.detail["user"]) == ("key.unrecorded", "mallory")


def test_a_policy_whose_text_cannot_be_kept_does_not_come_into_force(site: Path) -> None:
    """The archive is a file: the start fails, and a reload leaves the old one."""
    app = make_app(site)
    app.settings.journal_dir.mkdir(parents=True)
    app.settings.policies_dir.write_text("")
    with pytest.raises(JournalError, match="cannot be kept"):
        app.duties.policy_reloader.begin()
    before = app.policy.policy
    (site / "config" / "policy.toml").write_text(POLICY.replace("shell", "exec"))
    assert not app.duties.policy_reloader.reload()
    assert app.policy.policy is before
    app.journal.close()


def test_a_start_under_two_notebook_ports_is_refused(site: Path) -> None:
    """One of them would lead nowhere."""
    (site / "config" / "policy.toml").write_text(f"notebook_port = 9999\n{POLICY}")
    app = make_app(site)
    with pytest.raises(ConfigError, match=r"server\.notebook_port is 8888"):
        app.duties.policy_reloader.begin()
    app.journal.close()


def test_a_worker_joins_under_the_policy_that_was_written_down_last(site: Path) -> None:
    """Where the file is faulty by now: the others keep the old one, too. Without others it is refused."""
    run(make_app(site))
    (site / "config" / "policy.toml").write_text("version = 'faulty'")
    app = make_app(site)
    with pytest.raises(ConfigError):
        app.duties.policy_reloader.begin()
    app.duties.policy_reloader.join()
    assert list(app.policy.policy.roles) == ["member"]
    (site / "config" / "policy.toml").write_text(POLICY.replace("shell", "exec"))
    assert app.duties.policy_reloader.reload()
    assert "exec" in records(app, "policy.loaded")[-1].detail["changes"]
    app.journal.close()


def test_workers_decide_alike_where_one_missed_a_policy_that_a_faulty_one_followed(site: Path) -> None:
    """Each looks twice a second: one may see what the other does not. A gateway of one process keeps its own."""
    one, other = (make_app(site, DEVGW_SERVER_WORKERS="2") for _ in range(2))
    for app in (one, other):
        app.duties.policy_reloader.join()
    (site / "config" / "policy.toml").write_text(POLICY.replace("shell", "exec"))
    assert one.duties.policy_reloader.reload()
    (site / "config" / "policy.toml").write_text("version = 'faulty'")
    assert not one.duties.policy_reloader.reload()
    assert other.duties.policy_reloader.reload()
    assert not diff(one.policy.policy, other.policy.policy)
    for app in (one, other):
        app.journal.close()


def test_a_worker_writes_down_the_policy_it_joins_with(site: Path) -> None:
    """Before it decides by it, and without the duties: no head is signed."""
    app = make_app(site)
    app.duties.policy_reloader.join()
    app.journal.close()
    assert len(records(app, "policy.loaded")) == 1
    assert not (site / "heads").exists()


def test_a_verifier_key_is_read_from_its_file_or_its_text(tmp_path: Path) -> None:
    """What is neither is an error that says how to get one."""
    key = HeadKey(tmp_path / "keys")
    signer = key.ensure("gw.example.org/devgw")
    assert key.ensure("another").verifier == signer.verifier
    assert read_verifier(key.public) == read_verifier(str(signer.verifier)) == signer.verifier
    assert key.private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(JournalError) as caught:
        read_verifier(tmp_path / "absent")
    assert "audit head --verifier" in caught.value.hint
