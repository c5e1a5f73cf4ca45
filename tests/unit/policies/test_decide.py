"""Decisions: one table per kind of request, allowed and denied rows alike."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from policies.decide import decide
from policies.explain import request_for
from policies.load import DEFAULT_POLICY, load_policy, parse_policy
from policies.model import Policy
from policies.requests import ForwardRequest, LoginRequest, SessionRequest, Subject

PolicyOf = Callable[[str], Policy]

ANSWERS = [
    # sessions: only the kinds named
    ('sessions = ["shell"]', "shell", True),
    ('sessions = ["shell"]', "exec", False),
    ('sessions = ["shell", "exec", "sftp"]', "sftp", True),
    ("sessions = []", "shell", False),
    # forwards: nothing unless permitted
    ("", "forward 8888", False),
    ('permit_open = "none"', "forward 8888", False),
    # forwards: the notebook is one port
    ('permit_open = "notebook"', "forward 8888", True),
    ('permit_open = "notebook"', "forward 8889", False),
    # forwards: ports and ranges, ends included
    ('permit_open = [8888, "6000-6010"]', "forward 6000", True),
    ('permit_open = [8888, "6000-6010"]', "forward 6010", True),
    ('permit_open = [8888, "6000-6010"]', "forward 6011", False),
    ('permit_open = [8888, "6000-6010"]', "forward 5999", False),
    # forwards: any loopback port, in exactly three spellings
    ('permit_open = "any-loopback"', "forward localhost:33667", True),
    ('permit_open = "any-loopback"', "forward 127.0.0.1:1", True),
    ('permit_open = "any-loopback"', "forward [::1]:65535", True),
    ('permit_open = "any-loopback"', "forward 0.0.0.0:8888", False),
    ('permit_open = "any-loopback"', "forward 127.1:8888", False),
    ('permit_open = "any-loopback"', "forward 127.0.0.2:8888", False),
    ('permit_open = "any-loopback"', "forward 127.0.0.01:8888", False),
    ('permit_open = "any-loopback"', "forward 2130706433:8888", False),
    ('permit_open = "any-loopback"', "forward 0x7f000001:8888", False),
    ('permit_open = "any-loopback"', "forward [[::1]]:8888", False),
    ('permit_open = "any-loopback"', "forward [0:0:0:0:0:0:0:1]:8888", False),
    ('permit_open = "any-loopback"', "forward [::ffff:127.0.0.1]:8888", False),
    ('permit_open = "any-loopback"', "forward LOCALHOST:8888", False),
    ('permit_open = "any-loopback"', "forward localhost.:8888", False),
    ('permit_open = "any-loopback"', "forward localhost.localdomain:8888", False),
    # forwards: never metadata, containers, the gateway
    ('permit_open = "any-loopback"', "forward 169.254.169.254:80", False),
    ('permit_open = "any-loopback"', "forward [fd00:ec2::254]:80", False),
    ('permit_open = "any-loopback"', "forward 172.17.0.2:8888", False),
    # forwards: the gateway itself, by its name alone and never by a wide permission
    ('permit_open = "any-loopback"', "forward devgw:9464", False),
    ('permit_open = ["devgw:9464"]', "forward devgw:9464", True),
    ('permit_open = ["devgw:9464"]', "forward DEVGW:9464", True),
    ('permit_open = ["devgw:9464"]', "forward devgw:9465", False),
    ('permit_open = ["devgw:9464"]', "forward devgw.:9464", False),
    ('permit_open = ["devgw:9464"]', "forward localhost:9464", False),
    # forwards: what is no port
    ('permit_open = "any-loopback"', "forward localhost:0", False),
    ('permit_open = "any-loopback"', "forward localhost:65536", False),
    ('permit_open = "any-loopback"', "forward localhost:4294967295", False),
    # forwards: a host named in the policy, that port only, loopback not thereby
    ('permit_open = ["db.example.org:5432"]', "forward db.example.org:5432", True),
    ('permit_open = ["db.example.org:5432"]', "forward DB.example.org:5432", True),
    ('permit_open = ["db.example.org:5432"]', "forward db.example.org:22", False),
    ('permit_open = ["db.example.org:5432"]', "forward localhost:5432", False),
    # reverse forwards: loopback only, port 0 only with any-loopback
    ("", "reverse-forward 9000", False),
    ("permit_listen = [9000]", "reverse-forward 9000", True),
    ("permit_listen = [9000]", "reverse-forward 0", False),
    ('permit_listen = "any-loopback"', "reverse-forward 0", True),
    ('permit_listen = "any-loopback"', "reverse-forward 0.0.0.0:9000", False),
    ('permit_listen = "any-loopback"', "reverse-forward *:9000", False),
    ('permit_listen = "any-loopback"', "reverse-forward 65536", False),
    # Unix sockets: directions apart, absolute paths only
    ('allow_stream_local_forwarding = "no"', "streamlocal /tmp/x.sock", False),
    ('allow_stream_local_forwarding = "local"', "streamlocal /tmp/x.sock", True),
    ('allow_stream_local_forwarding = "local"', "streamlocal-listen /tmp/x.sock", False),
    ('allow_stream_local_forwarding = "remote"', "streamlocal-listen /tmp/x.sock", True),
    ('allow_stream_local_forwarding = "yes"', "streamlocal-listen /tmp/x.sock", True),
    ('allow_stream_local_forwarding = "yes"', "streamlocal tmp/x.sock", False),
    ('allow_stream_local_forwarding = "yes"', "streamlocal /tmp/../run/x.sock", False),
    ('allow_stream_local_forwarding = "yes"', "streamlocal /tmp/a\0b", False),
    ('allow_stream_local_forwarding = "yes"', "streamlocal /" + "x" * 200, False),
    # agent forwarding
    ("", "agent-forwarding", False),
    ("allow_agent_forwarding = true", "agent-forwarding", True),
    # variables: an allow-list, and some that nothing can allow
    ('accept_env = ["LANG", "LC_*"]', "variable LANG", True),
    ('accept_env = ["LANG", "LC_*"]', "variable LC_ALL", True),
    ('accept_env = ["LANG", "LC_*"]', "variable LANGUAGE", False),
    ('accept_env = ["LANG", "LC_*"]', "variable lang", False),
    ('accept_env = ["*"]', "variable LD_PRELOAD", False),
    ('accept_env = ["*"]', "variable BASH_ENV", False),
    ('accept_env = ["*"]', "variable PATH", False),
    ('accept_env = ["*"]', "variable PYTHONPATH", False),
    ('accept_env = ["*"]', "variable CUDA_VISIBLE_DEVICES", False),
    ('accept_env = ["*"]', "variable A=B", False),
    ('accept_env = ["*"]', "variable BASH_FUNC_x%%", False),
    ('accept_env = ["*"]', "variable X" + "Y" * 100, False),
    # what may be created: number, size, GPUs
    ('images = ["*"]\nmax_environments = 1', "create", True),
    ('images = ["*"]\nmax_environments = 1', "create environments=1", False),
    ('images = ["devgw/*"]\nmax_environments = 1', "image devgw/cuda:1", True),
    ('images = ["devgw/*"]\nmax_environments = 1', "image evil/devgw/cuda", False),
    ('images = ["devgw/env:cuda"]\nmax_environments = 1', "image devgw/env:cuda@sha256:ab", False),
    ('images = ["devgw/env:cuda@*"]\nmax_environments = 1', "image devgw/env:cuda@sha256:ab", True),
    ('images = ["*"]\ndeny.images = ["devgw/env:cuda"]\nmax_environments = 1', "image devgw/env:cuda@sha256:ab", False),
    ('images = ["*"]\nmax_environments = 1\nmax_memory = "8GiB"', "create memory=8GiB", True),
    ('images = ["*"]\nmax_environments = 1\nmax_memory = "8GiB"', "create memory=9GiB", False),
    ('images = ["*"]\nmax_environments = 1\nmax_disk = "8GiB"', "create disk=8GiB", True),
    ('images = ["*"]\nmax_environments = 1\nmax_disk = "8GiB"', "create disk=9GiB", False),
    ('images = ["*"]\nmax_environments = 1\nmax_disk = "8GiB"', "create", True),
    ('images = ["*"]\nmax_environments = 1\nmax_disk = "8GiB"', "create disk=0GiB", False),
    ('images = ["*"]\nmax_environments = 1', "create disk=900TiB", True),
    ('images = ["*"]\nmax_environments = 1\nmax_cpus = 4', "create cpus=4.5", False),
    ('images = ["*"]\nmax_environments = 1\nmax_cpus = 4', "create cpus=-1", False),
    ('images = ["*"]\nmax_environments = 1\nmax_gpus = 2', "gpu 2", True),
    ('images = ["*"]\nmax_environments = 1\nmax_gpus = 2', "create gpus=1 gpus-held=2", False),
    ('images = ["*"]\nmax_environments = 1\nmax_gpus = 2', "create gpus=1 profile=1g.10gb", False),
    ('images = ["*"]\nmax_environments = 1\nmax_gpus = 1\ngpu_profiles = ["1g.*"]', "gpu", True),
    (
        'images = ["*"]\nmax_environments = 1\nmax_gpus = 1\ngpu_profiles = ["1g.*"]',
        "create gpus=1 profile=full",
        False,
    ),
    # shared volumes: by name, reading and writing apart
    ('shared = {project-x = "rw"}', "shared project-x", True),
    ('shared = {project-x = "rw"}', "shared project-x rw", True),
    ('shared = {project-x = "ro"}', "shared project-x ro", True),
    ('shared = {project-x = "ro"}', "shared project-x rw", False),
    ('shared = {project-x = "rw"}', "shared project-y", False),
    ('shared = {project-x = "rw"}', "shared Project-x", False),
    ("", "shared project-x", False),
    # what may be created: datasets, lifetime
    ('images = ["*"]\nmax_environments = 1\ndatasets = ["imagenet"]', "dataset imagenet", True),
    ('images = ["*"]\nmax_environments = 1\ndatasets = ["imagenet"]', "dataset imagenet2", False),
    ('images = ["*"]\nmax_environments = 1\ndatasets = ["imagenet"]', "create dataset=imagenet,coco", False),
    ('images = ["*"]\nmax_environments = 1\nmax_lifetime = "7d"', "create lifetime=7d", True),
    ('images = ["*"]\nmax_environments = 1\nmax_lifetime = "7d"', "create lifetime=8d", False),
    # what may be created: egress
    ('images = ["*"]\nmax_environments = 1', "egress internet", False),
    ('images = ["*"]\nmax_environments = 1', "egress none", True),
    ('images = ["*"]\nmax_environments = 1\negress = "internet"', "egress internet", True),
    ('images = ["*"]\nmax_environments = 1\negress = "internet"', "egress 203.0.113.7:443", False),
    ('images = ["*"]\nmax_environments = 1\negress = ["203.0.113.0/24:443"]', "egress 203.0.113.7:443", True),
    ('images = ["*"]\nmax_environments = 1\negress = ["203.0.113.0/24:443"]', "egress list", True),
    ('images = ["*"]\nmax_environments = 1\negress = ["203.0.113.0/24:443"]', "egress 203.0.113.7:80", False),
    ('images = ["*"]\nmax_environments = 1\negress = ["203.0.113.0/24:443"]', "egress internet", False),
    ('images = ["*"]\nmax_environments = 1\negress = ["203.0.113.0/24:443"]', "egress nonsense", False),
    # the page: a user's with sessions, more only by its own word, none where it says so
    ("", "page user", False),
    ("", "forward devgw:80", False),
    ('sessions = ["shell"]', "page user", True),
    ('sessions = ["shell"]', "forward devgw:80", True),
    ('sessions = ["shell"]', "forward DevGW:80", True),
    ('sessions = ["shell"]', "forward devgw.:80", False),
    ('sessions = ["shell"]', "forward devgw:81", False),
    ('sessions = ["shell"]', "page auditor", False),
    ('page = "auditor"', "page auditor", True),
    ('page = "auditor"', "page user", True),
    ('page = "auditor"', "page admin", False),
    ('page = "auditor"', "forward devgw:80", True),
    ('page = "admin"', "page admin", True),
    ('page = "admin"', "forward devgw:9464", False),
    ('sessions = ["shell"]\npage = "none"', "page user", False),
    ('sessions = ["shell"]\npage = "none"', "forward devgw:80", False),
    ('permit_open = "any-loopback"', "forward devgw:80", False),
    ('permit_open = ["devgw:80"]', "page user", True),
    ('permit_open = ["devgw:80"]', "page auditor", False),
    ('page = "admin"\ndeny.permit_open = ["devgw:80"]', "page user", False),
    ('page = "admin"\ndeny.permit_open = ["devgw:80"]', "forward devgw:80", False),
    ('page = "admin"\ndeny.permit_open = ["devgw:9464"]', "page admin", True),
    # hosts by name: this host, this port; a name alone means 443
    ("", "egress-host pypi.org", False),
    ('egress = "internet"', "egress-host pypi.org", False),
    ('egress_hosts = ["pypi.org"]', "egress-host pypi.org", True),
    ('egress_hosts = ["pypi.org"]', "egress-host pypi.org:443", True),
    ('egress_hosts = ["PyPI.org"]', "egress-host pYpI.oRg.", True),
    ('egress_hosts = ["pypi.org"]', "egress-host pypi.org:80", False),
    ('egress_hosts = ["pypi.org"]', "egress-host test.pypi.org", False),
    ('egress_hosts = ["pypi.org"]', "egress-host notpypi.org", False),
    ('egress_hosts = ["pypi.org"]', "egress-host pypi.org.evil.example", False),
    ('egress_hosts = ["pypi.org"]', "egress-host pypi.org..", False),
    ('egress_hosts = ["github.com:443,22"]', "egress-host github.com:22", True),
    ('egress_hosts = ["github.com:443,22"]', "egress-host github.com:80", False),
    ('egress_hosts = ["github.com:8000-8010"]', "egress-host github.com:8010", True),
    ('egress_hosts = ["github.com:1-65535"]', "egress-host github.com:0", False),
    ('egress_hosts = ["github.com:1-65535"]', "egress-host github.com:65536", False),
    # hosts by name: below a name, not the name itself
    ('egress_hosts = ["*.hf.co"]', "egress-host cdn.hf.co", True),
    ('egress_hosts = ["*.hf.co"]', "egress-host eu.cdn.hf.co", True),
    ('egress_hosts = ["*.hf.co"]', "egress-host hf.co", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host .hf.co", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host xhf.co", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host evil-hf.co", False),
    # hosts by name: nothing but names, in no spelling
    ('egress_hosts = ["*.hf.co"]', "egress-host 127.0.0.1", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host *.hf.co", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host a\0.hf.co", False),
    ('egress_hosts = ["*.hf.co"]', "egress-host a b.hf.co", False),
    ('egress_hosts = ["*.hf.co"]', f"egress-host {'a.' * 130}hf.co", False),
]


@pytest.mark.parametrize(("options", "question", "allowed"), ANSWERS)
def test_a_role_permits_what_it_names_and_nothing_else(
    policy_of: PolicyOf, alice: Subject, at: datetime, options: str, question: str, allowed: bool
) -> None:
    """Every decision carries a rule and a reason."""
    policy = policy_of(options)
    decision = decide(policy, request_for(policy, question, alice, at))
    assert (decision.allowed, bool(decision.rule), bool(decision.reason)) == (allowed, True, True)


DENIALS = [
    # the same options allowed by one role and denied by another
    ('sessions = ["exec"]', 'sessions = ["exec"]', "exec"),
    ('permit_open = "any-loopback"', "permit_open = [22]", "forward 22"),
    ('permit_open = "any-loopback"', 'permit_open = "notebook"', "forward 8888"),
    ('permit_open = ["db.example.org:1-99"]', 'permit_open = ["db.example.org:22"]', "forward db.example.org:22"),
    ('permit_listen = "any-loopback"', "permit_listen = [9000]", "reverse-forward 9000"),
    ('permit_listen = "any-loopback"', "permit_listen = [9000]", "reverse-forward 0"),
    ('allow_stream_local_forwarding = "yes"', "allow_stream_local_forwarding = true", "streamlocal /tmp/x"),
    ("allow_agent_forwarding = true", "allow_agent_forwarding = true", "agent-forwarding"),
    ('accept_env = ["LC_*"]', 'accept_env = ["LC_TIME"]', "variable LC_TIME"),
    ('images = ["*"]\nmax_environments = 1', 'images = ["old"]', "image old"),
    ('images = ["*"]\nmax_environments = 1\ndatasets = ["*"]', 'datasets = ["secret"]', "dataset secret"),
    ('images = ["*"]\nmax_environments = 1\nmax_gpus = 1', 'gpu_profiles = ["full"]', "gpu"),
    ('images = ["*"]\nmax_environments = 1\negress = "internet"', "egress = true", "egress internet"),
    ('shared = {project-x = "rw"}', 'shared = ["project-*"]', "shared project-x"),
    ('egress_hosts = ["*.hf.co"]', "egress = true", "egress-host cdn.hf.co"),
    ('egress_hosts = ["*.hf.co"]', 'egress_hosts = ["cdn.hf.co"]', "egress-host cdn.hf.co"),
    ('egress_hosts = ["cdn.hf.co"]', 'egress_hosts = ["*.hf.co"]', "egress-host cdn.hf.co"),
    ('sessions = ["shell"]', "login = true", "login"),
    ('sessions = ["shell"]', 'networks = ["192.0.2.0/24"]', "shell"),
    ('sessions = ["shell"]', 'key_types = ["ed25519"]', "shell"),
]


@pytest.mark.parametrize(("allow", "deny", "question"), DENIALS)
def test_deny_comes_before_allow(alice: Subject, at: datetime, allow: str, deny: str, question: str) -> None:
    """A denial of one role beats the permission of another, and the decision names the denial."""
    head = 'version = 1\n[[grants]]\nusers = ["alice"]\nroles = ["open", "closed"]\n'
    open_only = parse_policy(f"{head}[roles.open]\n{allow}\n[roles.closed]\n", "p.toml")
    both = parse_policy(f"{head}[roles.open]\n{allow}\n[roles.closed.deny]\n{deny}\n", "p.toml")
    assert decide(open_only, request_for(open_only, question, alice, at)).allowed
    decision = decide(both, request_for(both, question, alice, at))
    assert not decision.allowed
    assert decision.rule.startswith("roles.closed.deny.")


KEYS = [
    # kinds and sizes
    ("", "ssh-ed25519", 256, True),
    ("", "sk-ssh-ed25519@openssh.com", 256, True),
    ("", "ssh-ed25519-cert-v01@openssh.com", 256, True),
    ("", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 256, True),
    ("", "ecdsa-sha2-nistp521", 521, True),
    ("", "rsa-sha2-512", 3072, True),
    ("", "ssh-rsa", 3071, False),
    ("", "ssh-rsa", 1024, False),
    ("", "ssh-dss", 1024, False),
    ("", "ssh-ed448", 448, False),
    ("", "", 0, False),
    ("required_rsa_size = 4096", "rsa-sha2-256", 3072, False),
    ("required_rsa_size = 4096", "rsa-sha2-256", 4096, True),
    ('key_types = ["ed25519"]', "ssh-rsa", 4096, False),
    ('key_types = ["ed25519"]', "sk-ssh-ed25519@openssh.com", 256, False),
    ("require_hardware_key = true", "ssh-ed25519", 256, False),
    ("require_hardware_key = true", "sk-ecdsa-sha2-nistp256@openssh.com", 256, True),
    ("require_certificate = true", "ssh-ed25519", 256, False),
]


@pytest.mark.parametrize(("options", "algorithm", "bits", "allowed"), KEYS)
def test_a_login_needs_a_key_that_the_roles_accept(
    policy_of: PolicyOf, alice: Subject, at: datetime, options: str, algorithm: str, bits: int, allowed: bool
) -> None:
    subject = replace(alice, key_algorithm=algorithm, key_bits=bits)
    assert decide(policy_of(options), LoginRequest(subject, at)).allowed is allowed


NETWORKS = [
    ("", "192.0.2.7", True),
    ('networks = ["192.0.2.0/24"]', "192.0.2.7", True),
    ('networks = ["192.0.2.0/24"]', "::ffff:192.0.2.7", True),
    ('networks = ["192.0.2.0/24"]', "192.0.3.7", False),
    ('networks = ["192.0.2.0/24"]', "2001:db8::1", False),
    ('networks = ["192.0.2.0/24", "2001:db8::/32"]', "2001:db8::1", True),
    ('networks = ["192.0.2.0/24"]', "", False),
    ('networks = ["192.0.2.0/24"]', "not-an-address", False),
]


@pytest.mark.parametrize(("options", "address", "allowed"), NETWORKS)
def test_a_login_comes_from_a_permitted_network(
    policy_of: PolicyOf, alice: Subject, at: datetime, options: str, address: str, allowed: bool
) -> None:
    assert decide(policy_of(options), LoginRequest(replace(alice, address=address), at)).allowed is allowed


@pytest.mark.parametrize(
    ("options", "when", "allowed"),
    [
        ('hours = ["mon-fri 08:00-20:00"]', "2026-05-04T08:00Z", True),
        ('hours = ["mon-fri 08:00-20:00"]', "2026-05-04T20:00Z", False),
        ('hours = ["mon-fri 08:00-20:00"]', "2026-05-03T12:00Z", False),
        ('hours = ["mon-fri 08:00-20:00"]\ntime_zone = "Europe/Berlin"', "2026-05-04T06:00Z", True),
        ('hours = ["mon-fri 08:00-20:00"]\ntime_zone = "Europe/Berlin"', "2026-05-04T18:00Z", False),
        ("from = 2026-05-05", "2026-05-04T23:59:59Z", False),
        ("from = 2026-05-05", "2026-05-05T00:00Z", True),
        ("until = 2026-05-05", "2026-05-05T23:59:59Z", True),
        ("until = 2026-05-05", "2026-05-06T00:00Z", False),
        ("until = 2026-05-05T10:00:30+02:00", "2026-05-05T08:00:29.9Z", True),
        ("until = 2026-05-05T10:00:30+02:00", "2026-05-05T08:00:30Z", False),
    ],
)
def test_access_has_hours_and_an_end(
    policy_of: PolicyOf, alice: Subject, options: str, when: str, allowed: bool
) -> None:
    """The same request is asked again for each open channel, so leaving the hours ends what is open."""
    request = SessionRequest(alice, datetime.fromisoformat(when), "shell")
    assert decide(policy_of(f'sessions = ["shell"]\n{options}'), request).allowed is allowed


def test_two_moments_of_one_minute_may_differ(policy_of: PolicyOf, alice: Subject) -> None:
    """What is remembered from one decision to the next never outlives an end inside the minute."""
    policy = policy_of('sessions = ["shell"]\nuntil = 2026-05-05T10:00:30Z')
    answers = [
        decide(policy, SessionRequest(alice, datetime(2026, 5, 5, 10, 0, second, tzinfo=UTC), "shell")).allowed
        for second in (10, 40, 10, 29, 30)
    ]
    assert answers == [True, False, True, True, False]


def test_hours_end_permissions_but_not_restrictions(alice: Subject, at: datetime) -> None:
    """A role asleep permits nothing, yet what it denies stays denied through the others."""
    policy = parse_policy(
        """
        version = 1
        [[grants]]
        users = ["alice"]
        roles = ["night", "always"]
        [roles.always]
        sessions = ["exec"]
        permit_open = "any-loopback"
        [roles.night]
        hours = ["mon-sun 22:00-06:00"]
        sessions = ["shell"]
        [roles.night.deny]
        permit_open = [22]
        """,
        "p.toml",
    )
    noon = [decide(policy, request_for(policy, question, alice, at)) for question in ("exec", "shell", "forward 22")]
    assert [decision.allowed for decision in noon] == [True, False, False]
    assert "night" in noon[1].reason
    late = at.replace(hour=23)
    assert decide(policy, request_for(policy, "shell", alice, late)).allowed


def test_a_revoked_key_is_refused_everywhere(alice: Subject, at: datetime) -> None:
    text = (
        f'version = 1\ndefault_roles = ["m"]\nrevoked_keys = ["{alice.key_fingerprint}"]\n[roles.m]\nsessions=["shell"]'
    )
    policy = parse_policy(text, "p.toml")
    for request in (LoginRequest(alice, at), SessionRequest(alice, at, "shell")):
        decision = decide(policy, request)
        assert (decision.allowed, decision.rule) == (False, "revoked_keys (p.toml:3)")
    assert decide(policy, LoginRequest(replace(alice, key_fingerprint="SHA256:other"), at)).allowed


def test_default_roles_are_for_those_whom_no_grant_names(at: datetime) -> None:
    """A user whose grant has ended does not fall back to the default roles."""
    policy = parse_policy(
        """
        version = 1
        default_roles = ["member"]
        roles.member.sessions = ["shell"]
        roles.guest.sessions = ["sftp"]
        [[grants]]
        users = ["gast"]
        roles = ["guest"]
        until = 2026-05-01
        """,
        "p.toml",
    )
    newcomer, guest = (Subject(name, "192.0.2.1", "ssh-ed25519", 256) for name in ("newcomer", "gast"))
    assert decide(policy, SessionRequest(newcomer, at, "shell")).allowed
    decision = decide(policy, LoginRequest(guest, at))
    assert (decision.allowed, decision.rule) == (False, "grants[0] (p.toml:6)")


def test_a_forward_to_a_port_outside_the_policy_is_denied(policy_of: PolicyOf, alice: Subject, at: datetime) -> None:
    """The refusal says default deny; a permission names the option and its line."""
    policy = policy_of("permit_open = [8888]")
    denied = decide(policy, ForwardRequest(alice, at, "localhost", 22))
    allowed = decide(policy, ForwardRequest(alice, at, "localhost", 8888))
    assert (denied.allowed, denied.rule) == (False, "default deny")
    assert (allowed.allowed, allowed.rule) == (True, "roles.tried.permit_open (tried.toml:6)")


@pytest.mark.attack("B3", "a host name of 100 kB with control characters, in the reason of a refusal")
def test_names_from_outside_are_quoted_and_cut_in_reasons(policy_of: PolicyOf, alice: Subject, at: datetime) -> None:
    """A host name of 100 kB with control characters leaves a short line of ASCII."""
    host = "\x1b[31m\u202eevil\n" + "x" * 100_000
    reason = decide(policy_of('permit_open = "any-loopback"'), ForwardRequest(alice, at, host, 80)).reason
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 300


def test_the_shipped_default_lets_create_with_a_gpu_work_out_of_the_box(at: datetime) -> None:
    """`devgw create alice --gpu 1` asks without a key and without an address."""
    policy = load_policy(DEFAULT_POLICY)
    request = request_for(policy, "create gpus=1 memory=64GiB cpus=8", Subject("alice"), at)
    assert decide(policy, request).allowed
