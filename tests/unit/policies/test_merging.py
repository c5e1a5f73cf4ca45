"""Several roles at once: one merge rule for each option, as docs/reference/policy.md lists them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from policies.decide import decide
from policies.explain import request_for
from policies.limits import Allowance, datasets_of, limits_of
from policies.load import parse_policy
from policies.model import Policy
from policies.requests import LoginRequest, Subject


def both(one: str, other: str) -> Policy:
    grant = '[[grants]]\nusers = ["alice"]\nroles = ["one", "other"]'
    return parse_policy(f"version = 1\n{grant}\n[roles.one]\n{one}\n[roles.other]\n{other}\n", "p.toml")


LIMITS: list[tuple[str, str, Callable[[Allowance], object], object]] = [
    # the largest maximum
    ("max_environments = 1", "max_environments = 3", lambda a: a.environments, 3),
    ('max_disk = "8GiB"', 'max_disk = "512MiB"', lambda a: a.disk_bytes, 8 * 2**30),
    ('max_memory = "8GiB"', 'max_memory = "512MiB"', lambda a: a.memory_bytes, 8 * 2**30),
    ("max_cpus = 2", "max_cpus = 0.5", lambda a: a.cpus, 2),
    ("max_gpus = 0", "max_gpus = 2", lambda a: a.gpus, 2),
    ("max_connections = 4", "max_connections = 2", lambda a: a.connections, 4),
    ("max_sessions = 4", "", lambda a: a.sessions, 4),
    # the longest span of those that set one; none sets one: no limit
    ('max_lifetime = "7d"', 'max_lifetime = "1d"', lambda a: a.lifetime_seconds, 7 * 86_400),
    ('max_lifetime = "7d"', "", lambda a: a.lifetime_seconds, 7 * 86_400),
    ("", "", lambda a: a.lifetime_seconds, None),
    ('max_lease = "4h"', 'max_lease = "90m"', lambda a: a.lease_seconds, 4 * 3600),
    # the shortest idle stop
    ('idle_stop = "2h"', 'idle_stop = "45m"', lambda a: a.idle_stop_seconds, 45 * 60),
    ('idle_stop = "2h"', "", lambda a: a.idle_stop_seconds, 2 * 3600),
    # recording as soon as one asks
    ("record_sessions = true", "record_sessions = false", lambda a: a.record_sessions, True),
    # every name
    ('images = ["a", "b"]', 'images = ["b", "c"]', lambda a: a.images, ("a", "b", "c")),
    ('datasets = ["a"]', 'datasets = ["c"]', lambda a: a.datasets, ("a", "c")),
    ("max_gpus = 1", 'gpu_profiles = ["1g.*"]', lambda a: a.gpu_profiles, ("full", "1g.*")),
    # the widest egress
    ('egress = "internet"', 'egress = "none"', lambda a: a.egress.mode, "internet"),
    ('egress = ["203.0.113.7:443"]', 'egress = "none"', lambda a: str(a.egress), "203.0.113.7/32:443"),
    ('egress = ["203.0.113.7"]', 'egress = "internet"', lambda a: str(a.egress), "internet, 203.0.113.7/32"),
    # every shared volume, and the right to write before the right to read
    (
        'shared = {b = "ro", a = "rw"}',
        'shared = {b = "rw", c = "ro"}',
        lambda a: ", ".join(map(str, a.shared)),
        "a (rw), b (rw), c (ro)",
    ),
    # every host by name
    (
        'egress_hosts = ["pypi.org"]',
        'egress_hosts = ["pypi.org", "*.hf.co:80,443"]',
        lambda a: ", ".join(map(str, a.egress_hosts)),
        "pypi.org, *.hf.co:80,443",
    ),
]


@pytest.mark.parametrize(("one", "other", "value", "merged"), LIMITS)
def test_limits_merge_by_one_rule_each(
    at: datetime, one: str, other: str, value: Callable[[Allowance], object], merged: object
) -> None:
    """The order of the roles does not matter."""
    forwards, backwards = limits_of(both(one, other), "alice", at), limits_of(both(other, one), "alice", at)
    assert value(forwards) == merged
    if isinstance(merged, tuple):
        assert set(value(backwards)) == set(merged)  # type: ignore[call-overload]  # both are tuples here
    else:
        assert value(backwards) == merged


RESTRICTIONS = [
    # the strictest of all roles held: each row is a subject that one role alone would let in
    ('networks = ["192.0.2.0/24"]', "", {"address": "198.51.100.1"}),
    ('networks = ["192.0.2.0/24"]', 'networks = ["198.51.100.0/24"]', {}),
    ('key_types = ["ed25519"]', 'key_types = ["ecdsa"]', {}),
    ("require_hardware_key = true", "", {}),
    ("require_certificate = true", "", {}),
    ("required_rsa_size = 4096", "", {"key_algorithm": "ssh-rsa", "key_bits": 3072}),
]


@pytest.mark.parametrize(("one", "other", "change"), RESTRICTIONS)
def test_the_strictest_restriction_of_all_roles_decides(
    alice: Subject, at: datetime, one: str, other: str, change: dict[str, str | int]
) -> None:
    """Otherwise a second role would open what the first one guards: a mounted dataset is seen by every session."""
    subject = replace(alice, **change)  # type: ignore[arg-type]  # the table names fields of Subject
    assert decide(both(other, ""), LoginRequest(subject, at)).allowed or other
    for policy in (both(one, other), both(other, one)):
        assert not decide(policy, LoginRequest(subject, at)).allowed


PERMISSIONS = [
    ('sessions = ["shell"]', 'sessions = ["sftp"]', "sftp"),
    ("permit_open = [8888]", "permit_open = [6006]", "forward 6006"),
    ("permit_open = [8888]", 'permit_open = ["db.example.org:5432"]', "forward db.example.org:5432"),
    ("permit_listen = [9000]", "permit_listen = [9001]", "reverse-forward 9001"),
    ('allow_stream_local_forwarding = "no"', 'allow_stream_local_forwarding = "local"', "streamlocal /tmp/x"),
    ("", "allow_agent_forwarding = true", "agent-forwarding"),
    ('accept_env = ["LANG"]', 'accept_env = ["TERM"]', "variable TERM"),
]


@pytest.mark.parametrize(("one", "other", "question"), PERMISSIONS)
def test_one_role_that_permits_is_enough(alice: Subject, at: datetime, one: str, other: str, question: str) -> None:
    for policy in (both(one, other), both(other, one)):
        assert decide(policy, request_for(policy, question, alice, at)).allowed


def test_denied_datasets_are_left_out_of_a_users_list(at: datetime) -> None:
    policy = both('datasets = ["public-*", "secret"]', 'deny.datasets = ["secret", "public-x"]')
    assert datasets_of(policy, "alice", ["public-a", "public-x", "secret", "other"], at) == ("public-a",)
