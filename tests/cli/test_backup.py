"""`devgw backup` and `restore`: what is kept, what is believed, and what is refused in a line, with nothing changed."""

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.audit.event import Event
from gateway.audit.heads import Head
from gateway.audit.journal import Journal
from gateway.audit.verify import verify
from gateway.environments.shared_volumes import SharedVolumes
from gateway.model import Actor
from gateway.store.database import SCHEMA_HEAD
from policies.shared import SharedVolume
from tests.cli.site import Outcome, Site
from tests.support.small_disk import small_disk

ACL = "system.posix_acl_default"
PREVIOUS = f"{int(SCHEMA_HEAD) - 1:04}"


@pytest.fixture
def kept(site: Site) -> Path:
    """A site with alice and bob, backed up into `backup`; her notebook's password has a hash among the files."""
    site.run("devgw init -q")
    for user in ("alice", "bob"):
        assert site.run(f"devgw create {user} --key {user}.pub").exit_code == 0
    assert site.run("devgw backup backup").exit_code == 0
    return site.directory / "backup"


def forget(site: Site) -> None:
    """Lose the machine: configuration and state are gone."""
    for name in ("config", "state", "run"):
        shutil.rmtree(site.directory / name, ignore_errors=True)


def state_of(site: Site) -> dict[str, str]:
    """Return a digest of every file there is in configuration and state."""
    return {
        str(path.relative_to(site.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("config", "state")
        for path in (site.directory / name).rglob("*")
        if path.is_file()
    }


def tar_of(site: Site) -> bytes:
    """Back up into a stream, as a process of its own would write it."""
    command = [sys.executable, "-m", "gateway", "backup", "-"]
    done = subprocess.run(command, capture_output=True, env=os.environ, check=True, timeout=120)
    return done.stdout


def restore_tar(site: Site, content: bytes) -> Outcome:
    (site.directory / "devgw.tar").write_bytes(content)
    return site.run("devgw restore devgw.tar")


@pytest.mark.emits("backup.restored")
def test_a_gateway_is_restored_onto_a_machine_that_has_nothing(site: Site, kept: Path) -> None:
    before = state_of(site)
    people = site.run("devgw key list alice").stdout + site.run("devgw user list").stdout
    fingerprint = App().authority.host_key_fingerprint()
    forget(site)
    outcome = site.run("devgw restore backup -o json")
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["contradictions"] == []
    assert site.run("devgw key list alice").stdout + site.run("devgw user list").stdout == people
    assert App().authority.host_key_fingerprint() == fingerprint
    after = state_of(site)
    same = {name for name in before if not name.startswith(("state/journal/segment", "state/devgw.db", "state/locks"))}
    volatile = {"state/reserve", "state/snapshots"}
    assert {name: after.get(name) for name in same - volatile} == {name: before[name] for name in same - volatile}
    assert verify(App().settings.journal_dir).ok
    codes = site.run("devgw audit log --action backup -o json").stdout
    assert [json.loads(line)["code"] for line in codes.splitlines()] == ["backup.restored"]
    assert site.run("devgw audit verify").exit_code == 0


@pytest.mark.emits("backup.made")
def test_a_backup_is_for_its_owner_alone(kept: Path) -> None:
    """Private keys and password hashes are in it."""
    for path in (kept, *kept.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (kept / "state/keys/user_ca").exists()
    hashes = list(kept.glob("state/environments/*/*/config/notebook_password"))
    assert len(hashes) == 2


def test_what_is_restored_is_for_whom_it_was(site: Site, kept: Path) -> None:
    """Keys are the gateway's alone; what an environment's user reads, they can read."""
    forget(site)
    assert site.run("devgw restore backup").exit_code == 0
    state = site.directory / "state"
    assert (state / "keys/user_ca").stat().st_mode & 0o777 == 0o600
    config = state / "environments/alice/main/config"
    assert config.stat().st_mode & 0o777 == 0o755
    user = App().users.require("alice")
    assert (config / "ssh_host_ed25519_key").stat().st_uid == (user.uid if os.geteuid() == 0 else os.geteuid())
    assert (config / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o400


def test_a_tar_stream_holds_the_same(site: Site, kept: Path) -> None:
    """From stdin onto another machine, which other directories stand for, and from a file."""
    content = tar_of(site)
    other = {f"DEVGW_{name}_DIR": str(site.directory / "other" / name.lower()) for name in ("CONFIG", "STATE", "RUN")}
    command = [sys.executable, "-m", "gateway", "restore", "-"]
    done = subprocess.run(command, input=content, capture_output=True, env=os.environ | other, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"restored the gateway" in done.stdout
    forget(site)
    assert restore_tar(site, content).exit_code == 0
    assert site.run("devgw user list -q").stdout.split() == ["alice", "bob"]


def test_a_backup_is_made_while_others_write(site: Site, kept: Path) -> None:
    """Users are made and disabled all the while; what is restored agrees with itself."""
    turns = 'while :; do "$0" -m gateway user disable alice -q; "$0" -m gateway user enable alice -q; done'
    writer = subprocess.Popen(["bash", "-c", turns, sys.executable], env=os.environ, start_new_session=True)
    try:
        for number in range(3):
            assert site.run(f"devgw backup while-{number}").exit_code == 0
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait(timeout=60)
    for number in range(3):
        forget(site)
        outcome = site.run(f"devgw restore while-{number} -o json")
        assert outcome.exit_code == 0, outcome.stderr
        assert {one.partition(":")[0] for one in json.loads(outcome.stdout)["contradictions"]} <= {"alice"}


def test_what_is_there_is_not_overwritten(site: Site, kept: Path) -> None:
    before = state_of(site)
    outcome = site.run("devgw restore backup")
    assert outcome.exit_code == 6
    assert "is there already" in outcome.stderr
    assert "--force moves what is there aside" in outcome.stderr
    assert state_of(site) == before


def test_force_moves_aside_and_loses_nothing(site: Site, kept: Path) -> None:
    assert site.run("devgw user disable bob").exit_code == 0
    before = state_of(site)
    outcome = site.run("devgw restore backup --force")
    assert outcome.exit_code == 0, outcome.stderr
    assert "open" in site.run("devgw user list").stdout
    (aside,) = (site.directory / "state").glob("replaced-*")
    moved = {hashlib.sha256(path.read_bytes()).hexdigest() for path in aside.rglob("*") if path.is_file()}
    again = set(state_of(site).values())
    kept_names = {name for name in before if not name.endswith(("-shm", "-wal"))}
    assert {before[name] for name in kept_names} <= moved | again


def test_a_gateway_that_serves_is_not_restored_over(site: Site, kept: Path) -> None:
    """A process with files of the state open stands for it, forced or not."""
    holder = subprocess.Popen(["sleep", "60"], stdin=(site.directory / "state/devgw.db").open("rb"))
    try:
        outcome = site.run("devgw restore backup --force")
    finally:
        holder.kill()
        holder.wait(timeout=60)
    assert outcome.exit_code == 6
    assert f"process {holder.pid} has files in DIR/state open" in outcome.stderr


def test_the_journal_is_proven_against_heads_kept_elsewhere(site: Site, kept: Path) -> None:
    """Those from before the backup must be met; those signed since say how many records are lost."""
    made = json.loads((kept / "manifest.json").read_text())["records"]
    site.run("devgw user disable bob")
    site.happens("the head is kept as later.head")
    later = int((site.directory / "later.head").read_text().splitlines()[1])
    (site.directory / "all.heads").write_text(
        (kept / "journal.head").read_text() + "\n" + (site.directory / "later.head").read_text()
    )
    forget(site)
    outcome = site.run("devgw restore backup --head all.heads --key later.head.pub -o json")
    assert outcome.exit_code == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert (found["proven_seq"], found["lost_records"]) == (made, later - made)
    assert found["lost_records"] >= 2  # `backup.made` itself, and what came then
    assert f"go up to record {later}: {later - made} records are lost for good" in outcome.stderr


def test_a_head_that_another_journal_was_signed_with_is_not_met(site: Site, kept: Path, tmp_path: Path) -> None:
    """Signed by the same key, over as many records or fewer, but over others: the backup is of a forged journal."""
    signer = App().head_key.load()
    forged = Head(signer.verifier.name, 2, bytes(32))
    (site.directory / "other.head").write_text(signer.sign(forged))
    forget(site)
    outcome = site.run("devgw restore backup --head other.head")
    assert (outcome.exit_code, "journal is not whole: record 2 is not the one" in outcome.stderr) == (1, True)
    assert state_of(site) == {}
    assert site.run("devgw restore backup --head other.head --unproven").exit_code == 0


def test_a_backup_whose_journal_lost_its_end_is_refused(site: Site, kept: Path) -> None:
    """Its own head says how far it went."""
    forget(site)
    name = "state/journal/segment-000000000001.jsonl"
    refit(kept, name, b"".join((kept / name).read_bytes().splitlines(keepends=True)[:-2]))
    outcome = site.run("devgw restore backup")
    assert (outcome.exit_code, "but its head was signed at" in outcome.stderr) == (1, True), outcome.stderr
    assert state_of(site) == {}


def refit(kept: Path, name: str, content: bytes) -> None:
    """Change a file of a backup, and its digest in the manifest with it, as somebody would who can write there."""
    (kept / name).write_bytes(content)
    manifest = json.loads((kept / "manifest.json").read_text())
    manifest["files"][name] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (kept / "manifest.json").write_text(json.dumps(manifest))


def edit_manifest(kept: Path, **changed: object) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    (kept / "manifest.json").write_text(json.dumps(manifest | changed))


def _forge_record(kept: Path) -> None:
    name = "state/journal/segment-000000000001.jsonl"
    refit(kept, name, (kept / name).read_bytes().replace(b'"name":"', b'"name":"x', 1))


def _rename_entry(kept: Path, to: str) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    manifest["files"][to] = manifest["files"].pop("config/policy.toml")
    (kept / "manifest.json").write_text(json.dumps(manifest))


def _link(kept: Path) -> None:
    (kept / "config/policy.toml").unlink()
    (kept / "config/policy.toml").symlink_to("/etc/passwd")


def _link_directory(kept: Path) -> None:
    (kept / "config").rename(kept / "elsewhere")
    (kept / "config").symlink_to(kept / "elsewhere")


def _pipe(kept: Path) -> None:
    (kept / "config/policy.toml").unlink()
    os.mkfifo(kept / "config/policy.toml")


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    # half a backup, or another thing
    "no manifest": (lambda kept: (kept / "manifest.json").unlink(), "has no manifest.json"),
    "a file is missing": (lambda kept: (kept / "state/keys/user_ca").unlink(), "is missing in backup"),
    "no JSON": (lambda kept: (kept / "manifest.json").write_text("{"), "the manifest cannot be read"),
    "another document": (lambda kept: (kept / "manifest.json").write_text("[]"), "the manifest cannot be read"),
    # changed
    "a byte more": (lambda kept: (kept / "config/policy.toml").open("a").write("#"), "config/policy.toml is not as it"),
    "a record forged": (_forge_record, "the backup's journal is not whole: record"),
    "the database emptied": (lambda kept: refit(kept, "database.sqlite", b"x" * 4096), "database cannot be used"),
    # of another version
    "a newer format": (lambda kept: edit_manifest(kept, format=2), "the backup is of format 2, and this devgw reads 1"),
    "newer tables": (lambda kept: edit_manifest(kept, schema="9999"), "has schema 9999, and this devgw knows"),
    # leading out of it
    "a name with ..": (lambda kept: _rename_entry(kept, "config/../../evil"), "no backup of devgw's holds"),
    "an absolute name": (lambda kept: _rename_entry(kept, "/etc/cron.d/evil"), "no backup of devgw's holds"),
    "another top": (lambda kept: _rename_entry(kept, "volumes/evil"), "no backup of devgw's holds"),
    "a link": (_link, "is no plain file"),
    "a link above": (_link_directory, "is no plain file, or below a link"),
    "a pipe": (_pipe, "is no plain file"),
    # of others
    "writable by others": (lambda kept: kept.chmod(0o777), "others may write to"),
    "one file writable": (lambda kept: (kept / "state/keys/user_ca").chmod(0o666), "others may write to the backup's"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_backup_that_cannot_be_believed_changes_nothing(site: Site, kept: Path, harm: str) -> None:
    act, said = HARMS[harm]
    forget(site)
    act(kept)
    outcome = site.run("devgw restore backup")
    assert outcome.exit_code == 1
    assert said in outcome.stderr, outcome.stderr
    assert "devgw: hint: " in outcome.stderr
    assert state_of(site) == {}
    assert not (site.directory / "evil").exists()


def test_a_backup_that_belongs_to_somebody_else_is_refused(site: Site, kept: Path) -> None:
    forget(site)
    os.chown(kept / "state/keys", 12345, 12345)
    outcome = site.run("devgw restore backup")
    assert (outcome.exit_code, "belongs to uid 12345" in outcome.stderr) == (1, True)
    assert state_of(site) == {}


def members(content: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            yield member, file.read() if file else b""


def tarred(parts: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in parts:
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _with(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"evil"
) -> Callable[[bytes], bytes]:
    def change(content_of_tar: bytes) -> bytes:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        return tarred([(member, content), *members(content_of_tar)])

    return change


STREAMS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _tar: b"", "the stream is no backup, or ends too early"),
    "no tar": (lambda _tar: b"hello" * 1000, "the stream is no backup, or ends too early"),
    "cut in the middle": (lambda tar: tar[: len(tar) // 2], "ends"),
    "cut before the manifest": (lambda tar: tarred(list(members(tar))[:-1]), "the stream ends before its manifest"),
    "a symlink": (_with("config/policy.toml", tarfile.SYMTYPE, "/etc/passwd"), "is no plain file"),
    "a hard link": (_with("config/x", tarfile.LNKTYPE, "config/devgw.toml"), "is no plain file"),
    "a device": (_with("config/x", tarfile.CHRTYPE), "is no plain file"),
    "a pipe": (_with("config/x", tarfile.FIFOTYPE), "is no plain file"),
    "a name with ..": (_with("config/../../evil"), "no backup of devgw's holds"),
    "an absolute name": (_with("/tmp/evil"), "no backup of devgw's holds"),
    "a name with an escape": (_with("config/\x1b[2J"), "no backup of devgw's holds"),
    "a file twice": (_with("config/policy.toml"), "comes twice"),
    "a stranger": (_with("config/evil.toml"), "is not in the manifest"),
}


@pytest.mark.parametrize("harm", STREAMS)
def test_a_stream_that_cannot_be_believed_changes_nothing(site: Site, kept: Path, harm: str) -> None:
    change, said = STREAMS[harm]
    content = change(tar_of(site))
    forget(site)
    done = restore_tar(site, content)
    assert done.exit_code == 1
    assert said in done.stderr, done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    assert state_of(site) == {}
    assert not Path("/tmp/evil").exists()
    assert not (site.directory / "evil").exists()


@pytest.mark.emits("backup.failed")
def test_a_full_disk_leaves_no_half_backup(site: Site, kept: Path, tmp_path: Path) -> None:
    journal = Journal(site.directory / "state/journal")
    for _ in range(2000):
        journal.submit(Event("admin.acted", Actor("admin", "root"), detail={"x": "x" * 1000}))
    journal.close()
    with small_disk(tmp_path, 1, "tmpfs") as disk:
        outcome = site.run(f"devgw backup {disk.path}/backup")
        assert outcome.exit_code == 1
        assert "no space left for the backup" in outcome.stderr
        assert list(disk.path.iterdir()) == []
        small = f"DEVGW_STATE_DIR={disk.path}/state DEVGW_CONFIG_DIR={disk.path}/config"
        assert site.run("devgw backup large").exit_code == 0
        outcome = site.run(f"{small} devgw restore large")
        assert (outcome.exit_code, "no space" in outcome.stderr) == (1, True), outcome.stderr
        assert [path for path in disk.path.rglob("*") if path.is_file()] == []


def test_volumes_go_along_by_rsync_and_cost_a_link_the_second_time(site: Site, kept: Path) -> None:
    home = site.directory / "state/volumes/alice/main/home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "weights.bin").write_bytes(bytes(2**20))
    (home / "link").symlink_to("weights.bin")
    assert site.run("devgw backup first --volumes").exit_code == 0
    (home / "notes").write_text("new")
    assert site.run("devgw backup second --volumes --link-dest first").exit_code == 0
    one, two = (site.directory / name / "volumes/alice/main/home/weights.bin" for name in ("first", "second"))
    assert one.stat().st_ino == two.stat().st_ino
    forget(site)
    assert site.run("devgw restore second").exit_code == 0
    assert (home / "notes").read_text() == "new"
    assert (home / "link").readlink() == Path("weights.bin")
    assert (home / "weights.bin").stat().st_size == 2**20


def test_the_first_night_with_volumes_has_none_to_link_to_and_copies_them(site: Site, kept: Path) -> None:
    """As the how-to says: a backup without them, then one with them that names it."""
    home = site.directory / "state/volumes/alice/main/home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "weights.bin").write_bytes(bytes(2**20))
    assert site.run("devgw backup monday").exit_code == 0
    outcome = site.run("devgw backup tuesday --volumes --link-dest monday")
    assert outcome.exit_code == 0, outcome.stderr
    assert "monday has no volumes to link to" in outcome.stderr
    assert (site.directory / "tuesday/volumes/alice/main/home/weights.bin").stat().st_size == 2**20
    outcome = site.run("devgw backup wednesday --volumes --link-dest tuesday")
    assert "no volumes" not in outcome.stderr
    assert (site.directory / "wednesday/volumes/alice/main/home/weights.bin").stat().st_nlink == 2


def test_shared_volumes_go_along_with_their_group_and_modes_or_stay_out_as_a_whole(site: Site, kept: Path) -> None:
    """Setgid, default ACL and group are what lets members write; without `--volumes` no file of theirs is taken."""
    (one,) = SharedVolumes(site.directory / "state", 100_000).have([SharedVolume("project-x", "rw")])
    deep = one.directory / "deep"
    deep.mkdir()
    (deep / "results").write_text("one")
    if os.geteuid() == 0:
        os.chown(deep / "results", 100_000, one.gid)
    assert site.run("devgw backup without").exit_code == 0
    assert "project-x" not in (site.directory / "without/manifest.json").read_text()
    assert not (site.directory / "without/state/shared").exists()
    assert site.run("devgw backup first --volumes").exit_code == 0
    assert site.run("devgw backup second --volumes --link-dest first").exit_code == 0
    same = [(site.directory / name / "shared/project-x/deep/results").stat().st_ino for name in ("first", "second")]
    assert same[0] == same[1]
    before = rights_below(site.directory / "state/shared")
    forget(site)
    assert site.run("devgw restore second").exit_code == 0
    assert rights_below(site.directory / "state/shared") == before
    assert (deep / "results").read_text() == "one"
    (again,) = SharedVolumes(site.directory / "state", 100_000).have([SharedVolume("project-x", "rw")])
    assert again == one


def test_a_shared_volume_that_is_a_file_system_of_its_own_is_taken_too(site: Site, kept: Path) -> None:
    """As an administrator mounts one who wants it to have a size."""
    with small_disk(site.directory / "state/shared", 1, "tmpfs") as disk:
        (disk.path / "results").write_text("on a disk of its own")
        assert site.run("devgw backup first --volumes").exit_code == 0
    assert (site.directory / "first/shared/disk/results").read_text() == "on a disk of its own"


def rights_below(place: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return mode, owner, group and default ACL of everything below a directory and of itself."""
    found = {}
    for one in (place, *place.rglob("*")):
        status = one.stat()
        acl = os.getxattr(one, ACL) if ACL in os.listxattr(one) else b""
        found[str(one.relative_to(place))] = (status.st_mode, status.st_uid, status.st_gid, acl)
    return found


REFUSED = [
    ("devgw backup - --volumes", 2, "volumes do not go into a tar stream"),
    ("devgw backup - -o json", 2, "stdout is the tar itself"),
    ("devgw backup next --link-dest backup", 2, "--link-dest is for volumes"),
    ("devgw backup next --volumes --link-dest nowhere", 2, "there is no backup in nowhere"),
    ("devgw backup next --volumes --link-dest state", 2, "there is no backup in state"),
    ("devgw backup backup", 6, "is there already"),
    ("devgw backup nowhere/at/all", 1, "no such file or directory"),
    ("devgw restore nowhere", 4, "is no directory with a backup"),
    ("devgw restore photo.jpg", 1, "the stream is no backup"),
    ("DEVGW_DATABASE_URL=postgresql+psycopg://a@127.0.0.1:1/x devgw backup next", 1, "refused"),
]


@pytest.mark.parametrize(("line", "code", "said"), REFUSED)
def test_what_cannot_be_done_is_said_in_a_line(site: Site, kept: Path, line: str, code: int, said: str) -> None:
    outcome: Outcome = site.run(line)
    assert outcome.exit_code == code, outcome.stderr
    assert said in outcome.stderr
    assert not (site.directory / "next").exists()


@pytest.mark.emits("database.migrated", "database.downgraded", "database.failed")
def test_the_tables_go_one_version_back_and_forward_again(site: Site, kept: Path) -> None:
    """A copy is kept each time; people and keys stay."""
    people = site.run("devgw user list").stdout
    assert site.run("devgw upgrade --check").exit_code == 0
    assert site.run("devgw downgrade").exit_code == 2
    assert site.run("devgw downgrade --yes").exit_code == 0
    outcome = site.run("devgw upgrade --check -o json")
    found = json.loads(outcome.stdout)
    assert (found["changes"], len(found["copies"])) == (True, 1)
    assert site.run("devgw upgrade").exit_code == 0
    assert not json.loads(site.run("devgw upgrade --check -o json").stdout)["changes"]
    assert site.run("devgw user list").stdout == people
    copies = sorted((site.directory / "state/snapshots").glob("*.db"))
    assert len(copies) == 2
    for copy in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(copy)) as database:
            assert database.execute("SELECT name FROM users ORDER BY name").fetchall() == [("alice",), ("bob",)]
    for _ in range(int(SCHEMA_HEAD)):
        last = site.run("devgw downgrade --yes")
    assert last.exit_code == 1
    assert "there is no schema before" in last.stderr


def test_tables_do_not_change_where_no_copy_can_be_kept(site: Site, kept: Path) -> None:
    """Neither forward nor back; the database is as it was."""
    assert site.run("devgw downgrade --yes").exit_code == 0
    shutil.rmtree(site.directory / "state/snapshots")
    (site.directory / "state/snapshots").write_text("in the way")
    for line in ("devgw upgrade", "devgw user list", "devgw downgrade --yes"):
        outcome = site.run(line)
        assert (outcome.exit_code, "snapshots: file exists" in outcome.stderr.lower()) == (1, True), outcome.stderr
    with closing(sqlite3.connect(site.directory / "state/devgw.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (PREVIOUS,)


def test_tables_of_a_newer_version_are_said_and_left(site: Site, kept: Path) -> None:
    with closing(sqlite3.connect(site.directory / "state/devgw.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    for line in ("devgw upgrade --check", "devgw upgrade"):
        outcome = site.run(line)
        assert (outcome.exit_code, "schema 9999 is newer" in outcome.stderr) == (6, True), outcome.stderr
