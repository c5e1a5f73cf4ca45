"""The access review: what it finds, and the page it makes."""

import json
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from gateway.audit.review import Person, Review, review
from gateway.audit.review_html import review_page
from gateway.model import Fingerprint, PublicKey, User, UserName
from policies.load import parse_policy
from tests.unit.audit.written_journals import NOON

POLICY = parse_policy(
    """
    version = 1
    [[grants]]
    users = ["alice", "ghost"]
    roles = ["member"]
    reason = "group"
    [[grants]]
    users = ["guest"]
    roles = ["member"]
    until = 2026-05-20
    [roles.member]
    sessions = ["shell", "exec"]
    permit_open = "any-loopback"
    datasets = ["public-*"]
    max_environments = 1
    max_memory = "8GiB"
    max_cpus = 2
    """,
    "site.toml",
)
DAY = timedelta(days=1)


def key(name: str, algorithm: str = "ssh-ed25519", bits: int = 256, used_days_ago: int | None = 1) -> PublicKey:
    used = NOON - used_days_ago * DAY if used_days_ago is not None else None
    return PublicKey(Fingerprint(f"SHA256:{name}"), algorithm, bits, "", f"{name}@laptop", NOON - 200 * DAY, used)


def person(name: str, *keys: PublicKey, login_days_ago: int | None = 1, disabled: bool = False) -> Person:
    login = NOON - login_days_ago * DAY if login_days_ago is not None else None
    return Person(User(UserName(name), 1000, NOON - 300 * DAY, disabled), keys, login)


def codes(*people: Person) -> list[tuple[str, str, str]]:
    known = [*people, *(person(name, key(f"k-{name}")) for name in ("alice", "ghost", "guest"))]
    unique = {one.user.name: one for one in reversed(known)}
    made = review(POLICY, list(unique.values()), datasets=["public-a", "secret"], at=NOON - 30 * DAY)
    return [(finding.severity, finding.code, finding.subject) for finding in made.findings]


FINDINGS = [
    ([person("alice", key("a"))], []),
    ([person("alice", key("a"), login_days_ago=130)], [("look", "user.unused", "alice")]),
    ([person("alice", key("a", used_days_ago=130))], [("look", "key.unused", "alice")]),
    ([person("alice", key("a", "ssh-rsa", 2048))], [("act", "key.weak", "alice")]),
    ([person("alice", key("a", "ssh-rsa", 4096))], []),
    ([person("alice")], [("look", "user.without-key", "alice")]),
    ([person("alice", disabled=True)], []),
    ([person("alice", key("a", "ssh-ed448", 448))], [("look", "key.useless", "alice")]),
    (
        [person("alice", key("same")), person("guest", key("same"))],
        [("act", "key.shared", "alice"), ("act", "key.shared", "guest")],
    ),
]


@pytest.mark.parametrize(("people", "findings"), FINDINGS)
def test_the_review_finds(people: list[Person], findings: list[tuple[str, str, str]]) -> None:
    assert sorted(codes(*people)) == sorted(findings)


@pytest.fixture
def made() -> Review:
    hostile = replace(key("h"), comment="<script>alert(1)</script>\x1b[2J\u202e")
    people = [person("alice", key("a"), key("w", "ssh-rsa", 1024)), person("guest", hostile, login_days_ago=None)]
    return review(POLICY, people, datasets=["public-a", "secret"], at=NOON)


def test_grants_that_end_soon_and_grants_to_nobody_are_named(made: Review) -> None:
    messages = {finding.code: finding.message for finding in made.findings}
    assert messages["grant.expiring"].startswith("the role member ends on 2026-05-21")
    assert "grants[1] (site.toml:7)" in messages["grant.expiring"]
    assert [finding.subject for finding in made.findings if finding.code == "grant.without-user"] == ["ghost"]


def test_what_must_be_acted_upon_comes_first(made: Review) -> None:
    severities = [finding.severity for finding in made.findings]
    assert severities == sorted(severities)
    assert severities[0] == "act"


def test_a_person_is_shown_with_what_they_may_and_why(made: Review) -> None:
    alice = made.people[0]
    may = dict(alice.may)
    assert (may["forwards"], may["datasets"], may["environments"]) == (
        "any port",
        "public-a",
        "1 of 8GiB, 2 processors",
    )
    assert alice.grants[0][:2] == ("member", "grants[0] (site.toml:3)")
    assert [line.accepted for line in alice.keys] == [True, False]
    assert json.dumps(made.as_dict())


class Page(HTMLParser):
    """Collects what a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_runs_nothing(made: Review) -> None:
    """A key's comment is whatever its owner wrote: it stands in the page as text."""
    source = review_page(made, "The journal is whole.")
    page = Page()
    page.feed(source)
    assert page.links == []
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "url(" not in source
    assert "@import" not in source
    assert "<script>alert(1)</script>\\x1b[2J\\u202e" in page.text
    for expected in ("alice", "guest", "key.weak", "grants[0] (site.toml:3)", "never", "The journal is whole."):
        assert expected in page.text
