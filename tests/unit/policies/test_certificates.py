"""Certificates: one of a listed CA, for this user, valid now and for no longer than allowed, from here, not revoked."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from policies.decide import decide
from policies.load import parse_policy
from policies.model import Policy
from policies.requests import Certificate, LoginRequest, Subject

CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMtG0XDqNyHkMsTNhpYc2cOuCb9JhNLXkQUnzh2YAXWy"
POLICY = f"""
version = 1
default_roles = ["member"]
[certificate_authorities.staff]
public_key = "{CA}"
max_validity = "8h"
revoked_serials = [13]
revoked_key_ids = ["old-laptop"]
[certificate_authorities.unused]
public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
[roles.member]
certificate_authorities = ["staff"]
require_certificate = true
"""
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(POLICY, "p.toml")


@pytest.fixture
def certificate(policy: Policy, at: datetime) -> Certificate:
    fingerprint = policy.certificate_authorities["staff"].fingerprint
    return Certificate(fingerprint, "alice@laptop", 7, ("alice",), at - HOUR, at + HOUR)


def test_the_fingerprint_is_the_one_that_ssh_keygen_prints(policy: Policy) -> None:
    fingerprint = policy.certificate_authorities["unused"].fingerprint
    assert fingerprint == "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"


CHANGES: list[tuple[dict[str, Any], str]] = [
    # whose CA
    ({"ca_fingerprint": "SHA256:other"}, "is not listed"),
    # for whom: a certificate without principals is for nobody
    ({"principals": ()}, "principal"),
    ({"principals": ("bob", "root", "alice2")}, "principal"),
    # revoked
    ({"serial": 13}, "serial 13 is revoked"),
    ({"key_id": "old-laptop"}, "revoked"),
    # what is not understood is refused
    ({"critical_options": ("force-command",)}, "critical option"),
    # where from
    ({"source_addresses": ("198.51.100.0/24",)}, "not valid from this address"),
    ({"source_addresses": ("nonsense",)}, "cannot be read"),
]


@pytest.mark.attack("A6", "every fault of a certificate, as the policy sees it")
@pytest.mark.parametrize(("change", "reason"), CHANGES)
def test_a_certificate_with_a_fault_is_refused(
    policy: Policy, certificate: Certificate, alice: Subject, at: datetime, change: dict[str, Any], reason: str
) -> None:
    good = replace(alice, certificate=certificate)
    bad = replace(alice, certificate=replace(certificate, **change))
    assert decide(policy, LoginRequest(good, at)).allowed
    decision = decide(policy, LoginRequest(bad, at))
    assert not decision.allowed
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("after", "before", "allowed"),
    [
        (-HOUR, HOUR, True),
        (timedelta(seconds=30), HOUR, True),  # clocks differ
        (2 * HOUR, 3 * HOUR, False),
        (-2 * HOUR, -HOUR, False),
        (-HOUR, timedelta(0), False),
        (-HOUR, 7 * HOUR, True),
        (-HOUR, 8 * HOUR, False),  # nine hours: longer than the CA may grant
    ],
)
def test_a_certificate_is_valid_for_a_while(
    policy: Policy,
    certificate: Certificate,
    alice: Subject,
    at: datetime,
    after: timedelta,
    before: timedelta,
    allowed: bool,
) -> None:
    dated = replace(certificate, valid_after=at + after, valid_before=at + before)
    assert decide(policy, LoginRequest(replace(alice, certificate=dated), at)).allowed is allowed


def test_a_ca_that_no_role_accepts_certifies_nobody(
    policy: Policy, certificate: Certificate, alice: Subject, at: datetime
) -> None:
    """Listing a CA is not yet trusting it."""
    other = replace(certificate, ca_fingerprint=policy.certificate_authorities["unused"].fingerprint)
    decision = decide(policy, LoginRequest(replace(alice, certificate=other), at))
    assert (decision.allowed, decision.reason) == (False, "no role accepts certificates of 'unused'")


def test_a_revoked_ca_certifies_nobody(policy: Policy, certificate: Certificate, alice: Subject, at: datetime) -> None:
    revoked = parse_policy(
        POLICY.replace("version = 1", f'version = 1\nrevoked_keys = ["{certificate.ca_fingerprint}"]'), "p.toml"
    )
    assert not decide(revoked, LoginRequest(replace(alice, certificate=certificate), at)).allowed
