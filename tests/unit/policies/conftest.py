"""Policies and people to ask about them."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from policies.load import parse_policy
from policies.model import Policy
from policies.requests import Subject

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
"""A Monday."""


@pytest.fixture
def at() -> datetime:
    return NOON


@pytest.fixture
def alice() -> Subject:
    return Subject("alice", "192.0.2.7", "ssh-ed25519", 256, "SHA256:" + "a" * 43)


@pytest.fixture
def policy_of() -> Callable[[str], Policy]:
    """Build a policy in which alice holds the role `tried` with the given options."""

    def build(options: str) -> Policy:
        text = f'version = 1\n[[grants]]\nusers = ["alice"]\nroles = ["tried"]\n[roles.tried]\n{options}\n'
        return parse_policy(text, "tried.toml")

    return build
