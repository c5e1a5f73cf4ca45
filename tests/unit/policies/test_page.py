"""Whose page somebody has: the highest of their roles, in their hours, and none where one denies it."""

from datetime import UTC, datetime

import pytest

from policies.decide import decide
from policies.load import PolicyError, parse_policy
from policies.page import level_held
from policies.requests import PageRequest, Subject

MONDAY_NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SATURDAY = datetime(2026, 5, 9, 12, tzinfo=UTC)
POLICY = """
version = 1
[roles.member]
sessions = ["shell"]
[roles.quiet]
sessions = ["shell"]
page = "none"
[roles.auditor]
page = "auditor"
[roles.weekdays]
page = "admin"
hours = ["mon-fri 08:00-18:00"]
[roles.closed]
deny.permit_open = ["devgw:80"]
[[grants]]
users = ["a"]
roles = [ROLES]
"""


@pytest.mark.parametrize(
    ("roles", "at", "level", "rule"),
    [
        (["member"], MONDAY_NOON, "user", "roles.member.page"),
        (["quiet"], MONDAY_NOON, "none", "default deny"),
        (["quiet", "member"], MONDAY_NOON, "user", "roles.member.page"),
        (["member", "auditor"], MONDAY_NOON, "auditor", "roles.auditor.page"),
        (["auditor", "weekdays"], MONDAY_NOON, "admin", "roles.weekdays.page"),
        (["auditor", "weekdays"], SATURDAY, "auditor", "roles.auditor.page"),
    ],
)
def test_the_highest_role_in_force_decides(roles: list[str], at: datetime, level: str, rule: str) -> None:
    """And is named as the rule."""
    policy = parse_policy(POLICY.replace("ROLES", ", ".join(f'"{role}"' for role in roles)), "policy.toml")
    assert level_held(policy.holders.effective_roles("a", at))[0] == level
    decision = decide(policy, PageRequest(Subject("a"), at, "user" if level == "none" else level))  # type: ignore[arg-type]
    assert decision.allowed is (level != "none")
    assert decision.rule.startswith(rule)


def test_a_denial_closes_whatever_another_role_gives() -> None:
    policy = parse_policy(POLICY.replace("ROLES", '"weekdays", "closed"'), "policy.toml")
    decision = decide(policy, PageRequest(Subject("a"), MONDAY_NOON, "user"))
    assert not decision.allowed
    assert decision.rule.startswith("roles.closed.deny.permit_open (policy.toml:")


@pytest.mark.parametrize("page", ['"x"', "true", "1", '["user"]', '""'])
def test_a_page_that_there_is_not_is_refused(page: str) -> None:
    with pytest.raises(PolicyError, match=r"roles\.member\.page"):
        parse_policy(f"version = 1\n[roles.member]\npage = {page}\n", "policy.toml")


@pytest.mark.parametrize("port", ["81", "80-81", "22", "9464-9465"])
def test_the_gateways_name_has_two_ports(port: str) -> None:
    with pytest.raises(PolicyError, match="the gateway itself"):
        parse_policy(f'version = 1\n[roles.member]\npermit_open = ["devgw:{port}"]\n', "policy.toml")
