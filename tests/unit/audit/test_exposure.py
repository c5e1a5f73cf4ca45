"""Who could read a dataset on a day, and who did; and whether the store agrees with the journal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.exposure import exposure
from gateway.audit.journal import Journal
from gateway.audit.policy_history import keep, loaded_event
from gateway.audit.segments import segments
from gateway.audit.store_comparison import compare
from gateway.errors import JournalError
from gateway.model import Actor
from policies.load import parse_policy

ADMIN = Actor("admin", "root")
GATEWAY = Actor("gateway", "devgw")
MAY = datetime(2026, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

OPEN = """
version = 1
default_roles = ["member"]
[roles.member]
images = ["*"]
max_environments = 1
datasets = ["imagenet"]
[roles.guest]
[[grants]]
users = ["guest"]
roles = ["guest"]
"""
CLOSED = OPEN.replace('datasets = ["imagenet"]', "datasets = []")


def day(number: int, hour: int = 0) -> datetime:
    return MAY.replace(day=number, hour=hour)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "policies"


@pytest.fixture
def story(directory: Path, archive: Path) -> Path:
    """The dataset is open to members until the evening of 3 May; alice uses it that day, bob the day before."""
    journal = Journal(directory)

    def note(at: datetime, code: str, who: str, **detail: str) -> None:
        actor = ADMIN if code.startswith(("environment", "user", "create")) else Actor("user", who, "", "192.0.2.7")
        journal.append(Event(code, actor, "" if code == "user.created" else who, detail=dict(detail), at=at))

    def load(at: datetime, text: str) -> None:
        event = loaded_event(GATEWAY, Path("policy.toml"), keep(archive, text), None, parse_policy(text, "p"))
        journal.append(Event(event.code, event.actor, detail=event.detail, at=at))

    load(day(1), OPEN)
    for name in ("alice", "bob", "carol"):
        note(day(1, 1), "user.created", name, user=name)
    for name in ("alice", "bob"):
        note(day(1, 2), "create.allowed", name, datasets="coco,imagenet")
        note(day(1, 2), "environment.created", name)
    note(day(1, 2), "environment.created", "carol", datasets="coco")
    note(day(2, 9), "session.opened", "bob")
    note(day(2, 20), "environment.deleted", "bob")
    note(day(3, 9), "session.opened", "alice")
    note(day(3, 11), "forward.opened", "alice")
    note(day(3, 12), "session.opened", "carol")
    note(day(3, 13), "forward.closed", "alice")
    note(day(3, 14), "session.closed", "alice")
    load(day(3, 18), CLOSED)
    note(day(4, 9), "session.opened", "alice")
    note(day(5), "user.created", "late", user="late")
    journal.close()
    return directory


def test_who_could_and_who_did_on_a_day(story: Path, archive: Path) -> None:
    answer = exposure(story, archive, "imagenet", day(3), day(4))
    assert [one.user for one in answer.could] == ["alice", "bob", "carol"]
    assert [(one.user, one.openings, one.first_at, one.last_at) for one in answer.did] == [
        ("alice", 2, day(3, 9), day(3, 11))
    ]
    assert (answer.mounted, answer.did[0].addresses) == (("alice",), ("192.0.2.7",))
    assert answer.could[0].reach.grants[0][0] == "member"


def test_a_narrowed_policy_and_a_deleted_environment_show(story: Path, archive: Path) -> None:
    """After the change nobody could get it, yet alice still had it mounted: the review must see that."""
    after = exposure(story, archive, "imagenet", day(4), day(5))
    assert (after.could, after.mounted, [one.user for one in after.did]) == ((), ("alice",), ["alice"])
    before = exposure(story, archive, "imagenet", day(2), day(3))
    assert [one.user for one in before.did] == ["bob"]


@pytest.mark.parametrize(
    ("end", "was_in"),
    [
        ((day(2, 23), "session.closed"), False),
        ((day(3, 1), "session.closed"), True),
        ((day(2, 23), "gateway.started"), False),
        ((day(2, 23), "environment.stopped"), False),
        (None, True),
    ],
    ids=["closed the day before", "closed on the day", "lost in a crash", "stopped", "never closed"],
)
def test_who_came_the_day_before_and_stayed_is_named(
    directory: Path, archive: Path, end: tuple[datetime, str] | None, was_in: bool
) -> None:
    journal = Journal(directory)
    loaded = loaded_event(GATEWAY, Path("policy.toml"), keep(archive, OPEN), None, parse_policy(OPEN, "p"))
    alice = Actor("user", "alice", "", "192.0.2.7")
    journal.append(Event(loaded.code, loaded.actor, detail=loaded.detail, at=day(1)))
    journal.append(Event("environment.created", ADMIN, "alice", detail={"datasets": "imagenet"}, at=day(1)))
    journal.append(Event("session.opened", alice, "alice", at=day(2, 9)))
    if end:
        at, code = end
        journal.append(
            Event(code, alice if code == "session.closed" else ADMIN, "" if "gateway" in code else "alice", at=at)
        )
    journal.append(Event("session.opened", alice, "alice", at=day(4, 1)))
    journal.close()
    did = exposure(directory, archive, "imagenet", day(3), day(4)).did
    assert [(one.user, one.openings, one.first_at) for one in did] == [("alice", 1, day(2, 9))] * was_in


def _of_alice(directory: Path, archive: Path, *events: tuple[datetime, str, dict[str, str], str]) -> None:
    """Journal a policy, alice's environment with the dataset, and events of her connections; the last field is why."""
    journal = Journal(directory)
    loaded = loaded_event(GATEWAY, Path("policy.toml"), keep(archive, OPEN), None, parse_policy(OPEN, "p"))
    alice = Actor("user", "alice", "", "192.0.2.7")
    journal.append(Event(loaded.code, loaded.actor, detail=loaded.detail, at=day(1)))
    journal.append(Event("environment.created", ADMIN, "alice", detail={"datasets": "imagenet"}, at=day(1)))
    for at, code, detail, reason in events:
        rule = "hours" if code == "session.revoked" else ""
        journal.append(Event(code, alice, "alice", reason=reason, rule=rule, detail=dict(detail), at=at))
    journal.close()


A, B = {"connection": "aaaa0000"}, {"connection": "bbbb0000"}


def test_a_stay_ends_with_its_own_connection_alone(directory: Path, archive: Path) -> None:
    """Without its own record of closing; the other connection of the same user goes on."""
    _of_alice(
        directory,
        archive,
        (day(2, 1), "session.opened", A, ""),
        (day(2, 2), "session.opened", B, ""),
        (day(2, 3), "connection.closed", A, ""),
    )
    did = exposure(directory, archive, "imagenet", day(3), day(4)).did
    assert [(one.openings, one.first_at) for one in did] == [(1, day(2, 2))]


def test_who_was_cut_off_by_the_gateway_is_told_with_the_reason(directory: Path, archive: Path) -> None:
    _of_alice(
        directory,
        archive,
        (day(3, 1), "session.opened", A, ""),
        (day(3, 2), "session.revoked", A | {"what": "connection"}, "outside the hours"),
        (day(3, 2), "session.closed", A, ""),
        (day(3, 2), "connection.closed", A, "outside the hours"),
    )
    (did,) = exposure(directory, archive, "imagenet", day(3), day(4)).did
    assert did.revoked == "outside the hours (rule: hours)"


def test_one_revoked_channel_does_not_speak_for_the_others(directory: Path, archive: Path) -> None:
    _of_alice(
        directory,
        archive,
        (day(3, 1), "session.opened", A, ""),
        (day(3, 1), "forward.opened", A, ""),
        (day(3, 2), "session.revoked", A | {"what": "forward localhost:6006"}, "not this port"),
        (day(3, 2), "session.closed", A, ""),
    )
    (did,) = exposure(directory, archive, "imagenet", day(3), day(4)).did
    assert did.revoked == ""
    journal = Journal(directory)
    closed = Event("forward.closed", Actor("user", "alice", "", "192.0.2.7"), "alice", detail=dict(A), at=day(3, 2))
    journal.append(replace(closed, reason="not this port (rule: r)"))
    journal.close()
    (did,) = exposure(directory, archive, "imagenet", day(3), day(4)).did
    assert did.revoked == "not this port (rule: r)"


def test_an_environment_that_ran_with_nobody_in_it_is_named(directory: Path, archive: Path) -> None:
    """Its programs could read the dataset: a job left behind reads on."""
    _of_alice(
        directory,
        archive,
        (day(2, 1), "environment.started", {}, ""),
        (day(2, 5), "environment.stopped", {}, ""),
        (day(2, 6), "environment.woken", {}, ""),
        (day(3, 5), "environment.stopped", {}, ""),
    )
    answer = exposure(directory, archive, "imagenet", day(3), day(4))
    assert [(one.environment, one.since, one.until, one.started_by) for one in answer.ran] == [
        ("alice", day(2, 6), day(3, 5), "alice")
    ]
    assert answer.did == ()
    assert exposure(directory, archive, "imagenet", day(3, 6), day(4)).ran == ()


def test_a_kept_policy_that_was_edited_is_not_believed(story: Path, archive: Path) -> None:
    for path in archive.glob("*.toml"):
        path.chmod(0o600)
        path.write_text(path.read_text().replace("imagenet", "nothing"))
    with pytest.raises(JournalError, match="edited"):
        exposure(story, archive, "imagenet", day(3), day(4))


def test_a_loaded_policy_is_recorded_with_its_effects() -> None:
    event = loaded_event(GATEWAY, Path("p.toml"), "00", parse_policy(OPEN, "a"), parse_policy(CLOSED, "b"))
    assert (event.detail["change_count"], event.detail["changes"]) == (1, "* loses: mount the dataset imagenet")


@pytest.fixture
def keys(directory: Path) -> Path:
    journal = Journal(directory)
    for code, user, fingerprint in [
        ("key.added", "alice", "SHA256:a1"),
        ("key.added", "alice", "SHA256:a2"),
        ("key.removed", "alice", "SHA256:a2"),
        ("key.added", "bob", "SHA256:b"),
    ]:
        journal.append(Event(code, ADMIN, detail={"user": user, "fingerprint": fingerprint}))
    journal.append(Event("user.disabled", ADMIN, detail={"user": "bob"}))
    journal.close()
    return directory


@pytest.mark.parametrize(
    ("stored", "disabled", "kinds"),
    [
        ({"alice": ["SHA256:a1"], "bob": ["SHA256:b"]}, ["bob"], []),
        # an editor of the database lets a key in
        ({"alice": ["SHA256:a1", "SHA256:x"], "bob": ["SHA256:b"]}, ["bob"], ["key.unrecorded"]),
        # swaps one
        ({"alice": ["SHA256:x"], "bob": ["SHA256:b"]}, ["bob"], ["key.unrecorded", "key.vanished"]),
        # gives one to somebody else
        ({"alice": ["SHA256:a1", "SHA256:b"], "bob": ["SHA256:b"]}, ["bob"], ["key.unrecorded"]),
        # brings back a removed one
        ({"alice": ["SHA256:a1", "SHA256:a2"], "bob": ["SHA256:b"]}, ["bob"], ["key.came-back"]),
        # enables a disabled user, or disables one
        ({"alice": ["SHA256:a1"], "bob": ["SHA256:b"]}, [], ["user.came-back"]),
        ({"alice": ["SHA256:a1"], "bob": ["SHA256:b"]}, ["alice", "bob"], ["user.disabled-unrecorded"]),
    ],
)
def test_an_edited_database_disagrees_with_the_journal(
    keys: Path, stored: dict[str, list[str]], disabled: list[str], kinds: list[str]
) -> None:
    assert sorted(one.kind for one in compare(keys, stored, disabled)) == kinds


@pytest.fixture
def pruned(directory: Path, archive: Path) -> Path:
    """What was before 1 May is gone, the making of alice's environment too; it was woken on 3 May."""
    journal, long_ago = Journal(directory, segment_bytes=1), day(1) - timedelta(days=365)
    alice = Actor("user", "alice", "", "192.0.2.7")
    for name in ("alice", "carol"):
        journal.append(Event("environment.created", ADMIN, name, detail={"datasets": "imagenet"}, at=long_ago))
    event = loaded_event(GATEWAY, Path("policy.toml"), keep(archive, OPEN), None, parse_policy(OPEN, "p"))
    journal.append(Event(event.code, event.actor, detail=event.detail, at=day(2)))
    journal.append(Event("environment.woken", alice, "alice", detail={"datasets": "coco,imagenet"}, at=day(3)))
    journal.append(Event("session.opened", alice, "alice", at=day(3, 9)))
    journal.close()
    for segment in segments(directory):
        if '"code":"environment.created"' in segment.path.read_text():
            segment.path.unlink()
    return directory


def test_an_environment_whose_making_was_pruned_is_known_from_its_last_start(pruned: Path, archive: Path) -> None:
    """And what is not known is said: nobody must take a list for whole that is not."""
    answer = exposure(pruned, archive, "imagenet", day(3), day(4))
    assert [one.user for one in answer.did] == ["alice"]
    assert answer.mounted == ("alice",)
    assert [one.user for one in answer.could] == ["alice"]
    assert answer.known_since is not None
    assert answer.as_dict()["known_since"] == answer.known_since.isoformat()
    assert exposure(pruned, archive, "coco", day(3), day(4)).mounted == ("alice",)


def test_a_journal_from_its_first_record_on_lacks_nothing(story: Path, archive: Path) -> None:
    assert exposure(story, archive, "imagenet", day(3), day(4)).known_since is None


def test_an_environment_that_got_another_name_had_the_dataset_before_and_after(directory: Path, archive: Path) -> None:
    """Its user too; what was done under each name is told under that name."""
    journal = Journal(directory)
    loaded = loaded_event(GATEWAY, Path("policy.toml"), keep(archive, OPEN), None, parse_policy(OPEN, "p"))
    journal.append(Event(loaded.code, loaded.actor, detail=loaded.detail, at=day(1)))
    journal.append(Event("user.created", ADMIN, detail={"user": "alice"}, at=day(1)))
    journal.append(Event("environment.created", ADMIN, "alice", detail={"datasets": "imagenet"}, at=day(1)))
    journal.append(Event("session.opened", Actor("user", "alice"), "alice", at=day(2)))
    journal.append(Event("environment.stopped", ADMIN, "alice", at=day(3)))
    journal.append(Event("user.renamed", ADMIN, detail={"user": "alice", "to": "alicia"}, at=day(3, 1)))
    journal.append(Event("environment.renamed", ADMIN, "alice", detail={"to": "alicia"}, at=day(3, 1)))
    journal.append(Event("session.opened", Actor("user", "alicia"), "alicia", at=day(4)))
    journal.close()
    found = exposure(directory, archive, "imagenet", day(2), day(5))
    assert [(one.user, one.environment, one.mounted_until) for one in found.did] == [
        ("alice", "alice", day(3, 1)),
        ("alicia", "alicia", None),
    ]
    assert {one.user for one in found.could} >= {"alice", "alicia"}
