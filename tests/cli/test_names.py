"""`devgw rename` and `devgw user delete`: everything that is somebody's goes along, or is kept, or nothing changes."""

import json
import tarfile
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.background.journal_maintenance import contradictions
from gateway.model import EnvironmentRef, GpuUuid, UserName
from gateway.store.schema import METADATA
from tests.cli.site import Site

POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
images = ["*"]
max_environments = 3
max_memory = "64GiB"
max_cpus = 64
"""


@pytest.fixture
def stopped(site: Site) -> Site:
    """Alice with two stopped environments, files in one of them, and a key; bob runs."""
    site.run("devgw init -q")
    (site.directory / "config/policy.toml").write_text(POLICY)
    for handle in ("alice", "alice+proj", "bob"):
        assert site.run(f"devgw create {handle} --key {handle.partition('+')[0]}.pub").exit_code == 0
    for handle in ("alice", "alice+proj"):
        assert site.run(f"devgw stop {handle}").exit_code == 0
    (home(site, "alice") / "thesis.tex").write_text("chapter 1")
    return site


def home(site: Site, user: str, name: str = "main") -> Path:
    return site.directory / "state/volumes" / user / name / "home"


def rows_of(user: str) -> dict[str, int]:
    """Return how many rows each table has of a user."""
    with App().database.reading() as connection:
        return {
            table.name: len(connection.execute(table.select().where(table.c.user == user)).all())
            for table in METADATA.sorted_tables
            if "user" in table.c and table.name != "live_sessions"
        }


@pytest.mark.emits("user.renamed", "environment.renamed")
def test_a_renamed_user_keeps_all_that_is_theirs(stopped: Site) -> None:
    before, uid = rows_of("alice"), App().users.require("alice").uid
    outcome = stopped.run("devgw rename alice alicia")
    assert outcome.exit_code == 0, outcome.stderr
    assert "alice is alicia now" in outcome.stdout
    assert rows_of("alicia") == before
    assert before["environments"] == 2
    assert set(rows_of("alice").values()) == {0}
    assert App().users.require("alicia").uid == uid
    assert (home(stopped, "alicia") / "thesis.tex").read_text() == "chapter 1"
    assert not (stopped.directory / "state/volumes/alice").exists()
    assert not (stopped.directory / "state/environments/alice").exists()
    assert stopped.run("devgw start alicia").exit_code == 0
    assert stopped.run("devgw start alicia+proj").exit_code == 0
    about = json.loads((stopped.directory / "state/environments/alicia/main/config/environment.json").read_text())
    assert about["user"] == "alicia"
    assert "/home/alicia" in (stopped.directory / "state/environments/alicia/main/config/passwd").read_text()
    assert stopped.run("devgw key list alicia").stdout.count("SHA256") == 1


def test_database_and_journal_agree_about_who_was_renamed(stopped: Site) -> None:
    """Also who was shut out, twice renamed, and whose old name another one gets."""
    stopped.run("devgw user disable alice")
    for old, new in (("alice", "alicia"), ("alicia", "ally")):
        assert stopped.run(f"devgw rename {old} {new}").exit_code == 0
    stopped.run("devgw stop bob")
    assert stopped.run("devgw rename bob alice").exit_code == 0
    app = App()
    assert list(contradictions(app.users, app.settings.journal_dir)) == []
    assert app.users.require("ally").disabled
    assert not app.users.require("alice").disabled
    assert stopped.run("devgw user delete ally --purge --yes").exit_code == 0
    assert stopped.run("devgw create ally --key alice.pub").exit_code == 0
    assert list(contradictions(app.users, app.settings.journal_dir)) == []


def test_one_environment_gets_another_name(stopped: Site) -> None:
    (home(stopped, "alice", "proj") / "data").write_text("1")
    assert stopped.run("devgw rename alice+proj alice+paper").exit_code == 0
    assert (home(stopped, "alice", "paper") / "data").read_text() == "1"
    assert (home(stopped, "alice") / "thesis.tex").exists()
    assert stopped.run("devgw start alice+paper").exit_code == 0
    assert stopped.run("devgw show alice+proj").exit_code == 4


REFUSED = [
    ("devgw rename bob robert", 6, "bob is running"),
    ("devgw rename alice bob", 6, "there is a user bob already"),
    ("devgw rename nobody else", 2, "is a system account"),
    ("devgw rename carol dave", 4, "no user 'carol'"),
    ("devgw rename alice Alicia", 2, "is not a user name"),
    ("devgw rename alice root", 2, "is a system account"),
    ("devgw rename alice+proj bob+proj", 2, "would be another user's"),
    ("devgw rename alice+proj alice", 6, "exists already"),
    ("devgw rename alice+nope alice+paper", 4, "no environment alice+nope"),
    ("devgw rename alice ../../etc", 2, "is not a user name"),
]


@pytest.mark.parametrize(("line", "code", "said"), REFUSED)
def test_what_cannot_be_renamed_is_left_as_it_is(stopped: Site, line: str, code: int, said: str) -> None:
    before = (rows_of("alice"), rows_of("bob"))
    outcome = stopped.run(line)
    assert (outcome.exit_code, said in outcome.stderr) == (code, True), outcome.stderr
    assert (rows_of("alice"), rows_of("bob")) == before
    assert (home(stopped, "alice") / "thesis.tex").exists()


def test_files_of_somebody_who_had_that_name_are_in_nobodys_hands(stopped: Site) -> None:
    """Neither mixed with them nor given to a user who has none."""
    left = home(stopped, "alicia")
    left.mkdir(parents=True)
    (left / "secret").write_text("hers")
    outcome = stopped.run("devgw rename alice alicia")
    assert (outcome.exit_code, "files of somebody of that name" in outcome.stderr) == (6, True)
    assert (home(stopped, "alice") / "thesis.tex").exists()
    App().users.ensure(UserName("empty"), uid_start=1)
    outcome = stopped.run("devgw rename empty alicia")
    assert (outcome.exit_code, "files of somebody of that name" in outcome.stderr) == (6, True)


def test_a_rename_that_was_cut_off_is_finished_by_doing_it_again(stopped: Site) -> None:
    """Killed after the first of its two steps on the disk, or after both."""
    volumes = stopped.directory / "state/volumes"
    (stopped.directory / "state/environments/alice").rename(stopped.directory / "state/environments/alicia")
    assert stopped.run("devgw rename alice alicia").exit_code == 0
    for kind in ("environments", "volumes"):
        (stopped.directory / "state" / kind / "alicia").rename(stopped.directory / "state" / kind / "ally")
    assert stopped.run("devgw rename alicia ally").exit_code == 0
    assert (volumes / "ally/main/home/thesis.tex").exists()
    assert stopped.run("devgw start ally").exit_code == 0


def test_a_name_whose_former_holder_used_gpus_is_refused_and_undone(stopped: Site) -> None:
    """The rows of use would be two people's; what was moved on the disk is back."""
    app = App()
    with app.database.transaction() as connection:
        for user in ("alice", "alicia"):
            connection.execute(
                METADATA.tables["usage_samples"].insert().values(
                    gpu_uuid=GpuUuid("GPU-1"), user=user, name="main", hour=app.users.require("alice").created_at,
                    observed_seconds=1, busy_seconds=1, memory_peak_bytes=1,
                )
            )  # fmt: skip
    before = rows_of("alice")
    outcome = stopped.run("devgw rename alice alicia")
    assert (outcome.exit_code, "used GPUs before" in outcome.stderr) == (6, True)
    assert rows_of("alice") == before
    assert (home(stopped, "alice") / "thesis.tex").exists()
    assert stopped.run("devgw start alice").exit_code == 0
    assert '"user.failed"' in stopped.run("devgw audit log --action user.failed -o json").stdout


@pytest.mark.emits("user.deleted")
def test_a_user_who_leaves_is_archived_and_gone(stopped: Site) -> None:
    archive = stopped.directory / "alice.tar.gz"
    outcome = stopped.run("devgw user delete alice --archive alice.tar.gz --yes")
    assert outcome.exit_code == 0, outcome.stderr
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        file = tar.extractfile("alice/main/home/thesis.tex")
        assert file is not None
        assert file.read() == b"chapter 1"
        about_file = tar.extractfile("user.json")
        assert about_file is not None
        about = json.load(about_file)
    assert [one["ref"]["name"] for one in about["environments"]] == ["main", "proj"]
    assert about["keys"][0]["line"] in (stopped.directory / "alice.pub").read_text()
    assert App().users.get("alice") is None
    assert {name: count for name, count in rows_of("alice").items() if count} == {}
    assert not (stopped.directory / "state/volumes/alice").exists()
    app = App()
    assert list(contradictions(app.users, app.settings.journal_dir)) == []
    assert app.table.get(EnvironmentRef.parse("bob")) is not None


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("devgw user delete alice --yes", 6, "alice has files in"),
        ("devgw user delete bob --purge --yes", 6, "bob is running"),
        ("devgw user delete carol --yes", 4, "no user 'carol'"),
        ("devgw user delete alice --archive alice.pub --yes", 6, "is there already"),
        ("devgw user delete alice --archive nowhere/alice.tar --yes", 1, "no such file or directory"),
        ("devgw user delete alice --archive alice.tar", 2, "not without a confirmation"),
    ],
)
def test_nobody_is_removed_by_halves(stopped: Site, line: str, code: int, said: str) -> None:
    before = rows_of("alice")
    outcome = stopped.run(line)
    assert (outcome.exit_code, said in outcome.stderr) == (code, True), outcome.stderr
    assert rows_of("alice") == before
    assert not App().users.require("bob").disabled
    assert (home(stopped, "alice") / "thesis.tex").exists()
    assert not [path for path in stopped.directory.iterdir() if "partial" in path.name]


def test_files_that_are_purged_are_gone_without_an_archive(stopped: Site) -> None:
    assert stopped.run("devgw user delete alice --purge --yes").exit_code == 0
    assert not (stopped.directory / "state/volumes/alice").exists()
