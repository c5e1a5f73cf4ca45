"""The difference of two policies in effects."""

import pytest

from policies.diff import diff
from policies.load import DEFAULT_POLICY, load_policy, parse_policy

BASE = 'version = 1\n[[grants]]\nusers = ["alice", "bob"]\nroles = ["m"]\n[roles.m]\n'

CHANGES = [
    # names
    ('sessions = ["shell"]', 'sessions = ["shell", "exec"]', ["alice, bob gains: open exec sessions"]),
    ('datasets = ["a"]', 'datasets = ["b"]',
     ["alice, bob gains: mount the dataset b", "alice, bob loses: mount the dataset a"]),
    ('shared = {x = "ro"}', 'shared = {x = "rw"}', ["alice, bob gains: write to the shared volume x"]),
    ('shared = {x = "ro"}', 'shared = {x = "ro"}\ndeny.shared = ["x"]',
     ["alice, bob is restricted: never the shared volume x", "alice, bob loses: read the shared volume x"]),
    # ports: exactly those that differ
    ('permit_open = ["6000-6010"]', 'permit_open = ["6005-6012"]',
     ["alice, bob gains: forward to localhost 6011-6012", "alice, bob loses: forward to localhost 6000-6004"]),
    ('permit_open = "any-loopback"', 'permit_open = "notebook"',
     ["alice, bob loses: forward to localhost 1-8887, 8889-65535"]),
    ('permit_open = "any-loopback"', 'permit_open = "any-loopback"\ndeny.permit_open = [22]',
     ["alice, bob loses: forward to localhost 22"]),
    ('permit_open = "none"', 'permit_open = ["db.example.org:5432"]',
     ["alice, bob gains: forward to db.example.org 5432"]),
    # numbers
    ("max_gpus = 1", "max_gpus = 2", ["alice, bob gains: GPUs: 1 -> 2"]),
    (
        'max_environments = 1\nmax_disk = "16GiB"',
        "max_environments = 1",
        ["alice, bob gains: disk: 16GiB -> no limit"],
    ),
    ('max_environments = 1\nidle_stop = "1h"', "max_environments = 1", ["alice, bob gains: idle time: 1h -> no limit"]),
    ('max_memory = "16GiB"', 'max_memory = "512MiB"', ["alice, bob loses: memory: 16GiB -> 512MiB"]),
    # restrictions
    ("", "require_hardware_key = true", ["alice, bob is restricted: only keys in a security key"]),
    ('networks = ["192.0.2.0/24"]', "", ["alice, bob is freed: only from 192.0.2.0/24"]),
    ("", 'deny.images = ["old"]', ["alice, bob is restricted: never the image old"]),
    # hosts by name: port by port
    ('egress_hosts = ["pypi.org"]', 'egress_hosts = ["pypi.org", "github.com:443,22"]',
     ["alice, bob gains: connect by name to github.com port 22, 443"]),
    ('egress_hosts = ["github.com:443,22"]', 'egress_hosts = ["github.com"]',
     ["alice, bob loses: connect by name to github.com port 22"]),
    ('egress_hosts = ["a.hf.co"]', 'egress_hosts = ["a.hf.co"]\ndeny.egress_hosts = ["*.hf.co"]',
     ["alice, bob is restricted: never connections by name to *.hf.co",
      "alice, bob loses: connect by name to a.hf.co port 443"]),
    # nothing
    ("max_gpus = 1", "max_gpus = 1\ndescription = 'told apart by no effect'", []),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "changes"), CHANGES)
def test_a_change_is_told_in_its_effects(before: str, after: str, changes: list[str]) -> None:
    old, new = parse_policy(BASE + before, "old.toml"), parse_policy(BASE + after, "new.toml")
    assert [str(change) for change in diff(old, new)] == changes


def test_a_user_who_leaves_loses_everything_by_name() -> None:
    both = parse_policy(BASE + 'sessions = ["shell"]\npermit_open = [8888]', "old.toml")
    one = parse_policy(BASE.replace(', "bob"', "") + 'sessions = ["shell"]\npermit_open = [8888]', "new.toml")
    assert [str(change) for change in diff(both, one)] == [
        "bob loses: be here as m",
        "bob loses: forward to localhost 8888",
        "bob loses: have the page of a user",
        "bob loses: open shell sessions",
    ]


def test_default_roles_concern_everyone_else() -> None:
    old = load_policy(DEFAULT_POLICY)
    new = parse_policy(DEFAULT_POLICY.read_text().replace("max_gpus = 1", "max_gpus = 2").split("[[tests]]")[0], "new")
    assert [str(change) for change in diff(old, new)] == ["* gains: GPUs: 1 -> 2"]


def test_an_end_of_a_grant_is_an_effect() -> None:
    timed = BASE.replace("[roles.m]", "until = 2026-12-31\n[roles.m]")
    changes = diff(parse_policy(BASE, "old"), parse_policy(timed, "new"))
    assert [(change.verb, change.effect) for change in changes] == [
        ("gains", "be here as m until 2027-01-01T00:00:00+00:00"),
        ("loses", "be here as m"),
    ]


def test_a_revoked_key_concerns_all() -> None:
    key = "SHA256:" + "k" * 43
    revoking = BASE.replace("version = 1", f'version = 1\nrevoked_keys = ["{key}"]')
    changes = diff(parse_policy(BASE, "old"), parse_policy(revoking, "new"))
    assert [str(change) for change in changes] == [f"* is restricted: the key {key} is revoked"]
