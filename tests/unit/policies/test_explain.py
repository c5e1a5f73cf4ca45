"""Explanations and reach: what a person reads who asks why, or who."""

import json
from datetime import datetime, timedelta

import pytest

from policies.explain import explain
from policies.load import parse_policy
from policies.model import Policy
from policies.reach import best_subject, who_can
from policies.requests import Subject

POLICY = """
version = 1
time_zone = "UTC"
[roles.day]
hours = ["mon-fri 08:00-18:00"]
sessions = ["shell"]
permit_open = [8888]
[roles.data]
datasets = ["imagenet"]
images = ["*"]
max_environments = 1
require_hardware_key = true
networks = ["198.51.100.0/24"]
[[grants]]
users = ["alice", "bob"]
roles = ["day"]
[[grants]]
users = ["alice"]
roles = ["data"]
until = 2026-12-31
[[grants]]
users = ["late"]
roles = ["day"]
from = 2027-01-01
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(POLICY, "site.toml")


@pytest.mark.parametrize(
    ("user", "question", "hour", "allowed", "states"),
    [
        ("bob", "shell", 12, True, ["in force"]),
        ("bob", "shell", 19, False, ["outside its hours (mon-fri 08:00-18:00)"]),
        ("bob", "dataset imagenet", 12, False, ["in force"]),
        ("alice", "dataset imagenet", 23, True, ["outside its hours (mon-fri 08:00-18:00)", "in force"]),
        ("late", "shell", 12, False, ["begins 2027-01-01T00:00:00+00:00"]),
        ("nobody", "shell", 12, False, []),
    ],
)
def test_an_explanation_shows_each_role_and_its_state(
    policy: Policy, at: datetime, user: str, question: str, hour: int, allowed: bool, states: list[str]
) -> None:
    when = at.replace(hour=hour)
    explanation = explain(policy, question, best_subject(policy, user, when), when)
    assert explanation.decision.allowed is allowed
    assert [state for _role, _grant, state in explanation.roles] == states
    assert json.dumps(explanation.as_dict())


def test_an_explanation_names_the_line(policy: Policy, at: datetime) -> None:
    explanation = explain(policy, "forward localhost:8888", best_subject(policy, "bob", at), at)
    assert explanation.decision.rule == "roles.day.permit_open (site.toml:7)"
    assert explanation.roles == (("day", "grants[0] (site.toml:14)", "in force"),)


@pytest.mark.parametrize(
    "question", ["", "fly", "forward", "forward localhost:x", "create nonsense", "create gpus=x", "login x"]
)
def test_what_is_no_question_is_refused(policy: Policy, at: datetime, question: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        explain(policy, question, Subject("bob"), at)


@pytest.mark.parametrize(
    ("question", "users"),
    [
        ("login", ["alice", "bob"]),
        ("forward 8888", ["alice", "bob"]),
        ("forward 8889", []),
        ("dataset imagenet", ["alice"]),
        ("gpu", []),
    ],
)
def test_who_can_answers_as_if_with_the_best_key(policy: Policy, at: datetime, question: str, users: list[str]) -> None:
    """Alice needs a hardware key and an address inside; whether she has them is the review's matter."""
    reached = who_can(policy, ["alice", "bob", "late", "stranger"], question, at)
    assert [reach.user for reach in reached if reach.decision.allowed] == users


def test_who_can_says_by_which_grant_and_until_when(policy: Policy, at: datetime) -> None:
    reach = next(who_can(policy, ["alice"], "dataset imagenet", at))
    assert [(role, grant) for role, grant, _until in reach.grants] == [
        ("day", "grants[0] (site.toml:14)"),
        ("data", "grants[1] (site.toml:17)"),
    ]
    assert reach.grants[1][2] == datetime(2027, 1, 1, tzinfo=at.tzinfo)
    assert json.dumps(reach.as_dict())
    over = at + timedelta(days=365)
    assert not next(who_can(policy, ["alice"], "dataset imagenet", over)).decision.allowed
