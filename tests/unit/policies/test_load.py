"""Reading a policy: every fault names file, line and key; a policy that fails its own tests is not loaded."""

import re
from pathlib import Path

import pytest

import policies
from policies.load import DEFAULT_POLICY, PolicyError, load_policy, parse_policy, parse_untested
from policies.policy_tests.run import run_policy_tests

EXAMPLES = sorted((Path(policies.__file__).parent / "examples").glob("*.toml"))

FAULTS = [
    # not TOML
    ("version = 1\nx = [", 2, "", "invalid"),
    ("version = 1\nversion = 2", 2, "", "version is there twice"),
    ("version = 1\n[roles.a]\n[roles.a]", 3, "", "[roles.a] is there twice"),
    ("version = 1\n[roles.a]\negress = none", 3, "", "what egress is set to is no value of TOML"),
    # not this format
    ("version = 2", 1, "version", "should be 1"),
    ("", 0, "version", "is missing"),
    # unknown keys: a mistyped restriction must not read as none
    ("version = 1\n[roles.a]\nmax_gpu = 1", 3, "roles.a.max_gpu", "did you mean 'max_gpus'"),
    ("version = 1\n[roles.a.deny]\npermitopen = [22]", 3, "roles.a.deny.permitopen", "did you mean 'permit_open'"),
    ("version = 1\n[[grants]]\nuser = ['a']\nroles = ['b']", 3, "grants.0.user", "did you mean 'users'"),
    ("version = 1\nrole = 3", 2, "role", "did you mean 'roles'"),
    ("version = 1\n[roles.a]\nfrm = 2026-01-01", 3, "roles.a.frm", "did you mean 'from'"),
    # names that point nowhere
    ("version = 1\ndefault_roles = ['x']", 2, "default_roles", "no role 'x'"),
    ("version = 1\n[roles.member]\n[[grants]]\nusers=['a']\nroles=['membr']", 5, "grants.0.roles", "mean 'member'"),
    ("version = 1\n[roles.a]\ncertificate_authorities = ['c']", 3, "roles.a.certificate_authorities", "'c'"),
    # values
    ("version = 1\n[roles.a]\nsessions = ['shell',\n'tunnel']", 3, "roles.a.sessions.1", "'shell', 'exec' or 'sftp'"),
    ("version = 1\n[roles.a]\nidle_stop = 90", 3, "roles.a.idle_stop", "90m"),
    ("version = 1\n[roles.a]\nmax_memory = '16G'", 3, "roles.a.max_memory", "16GiB"),
    ("version = 1\n[roles.a]\nmax_gpus = -1", 3, "roles.a.max_gpus", "greater than or equal to 0"),
    ("version = 1\n[roles.a]\nrequired_rsa_size = 2048", 3, "roles.a.required_rsa_size", "3072"),
    ("version = 1\n[roles.a]\nkey_types = ['dsa']", 3, "roles.a.key_types.0", "'ed25519'"),
    ("version = 1\n[roles.a]\nhours = ['9-5']", 3, "roles.a.hours.0", "mon-fri 08:00-20:00"),
    ("version = 1\ntime_zone = 'Mars/Base'", 2, "time_zone", "Europe/Berlin"),
    ("version = 1\n[roles.a]\nuntil = '2026-01-01'", 3, "roles.a.until", "without quotes"),
    ("version = 1\n[roles.a]\nnetworks = ['10.0.0.1/8']", 3, "roles.a.networks.0", "host bits"),
    ("version = 1\n[roles.a]\npermit_open = ['localhost:80']", 3, "roles.a.permit_open", "port alone"),
    ("version = 1\n[roles.a]\npermit_open = ['devgw:22']", 3, "roles.a.permit_open", "'devgw:9464', its metrics"),
    ("version = 1\n[roles.a]\npermit_open = ['Devgw:1-65535']", 3, "roles.a.permit_open", "its metrics"),
    ("version = 1\n[roles.a]\npermit_open = ['169.254.169.254:80']", 3, "roles.a.permit_open", "link-local"),
    ("version = 1\n[roles.a]\npermit_open = ['0:80']", 3, "roles.a.permit_open", "usual form"),
    ("version = 1\n[roles.a]\npermit_open = ['0x7f000001:80']", 3, "roles.a.permit_open", "usual form"),
    ("version = 1\n[roles.a]\npermit_open = [70000]", 3, "roles.a.permit_open", "65535"),
    ("version = 1\n[roles.a]\npermit_open = ['6010-6000']", 3, "roles.a.permit_open", "lowest first"),
    ("version = 1\n[roles.a]\npermit_listen = ['notebook']", 3, "roles.a.permit_listen", "loopback"),
    ("version = 1\n[roles.a]\naccept_env = ['LD_PRELOAD']", 3, "roles.a.accept_env.0", "never accepted"),
    ("version = 1\n[roles.a]\naccept_env = ['PYTHON*']", 3, "roles.a.accept_env.0", "never accepted"),
    ("version = 1\n[roles.a]\negress = ['169.254.0.0/16']", 3, "roles.a.egress", "link-local"),
    ("version = 1\n[roles.a]\negress = ['0.0.0.0/0']", 3, "roles.a.egress", "'internet'"),
    ("version = 1\n[roles.a]\negress = ['128.0.0.0/1']", 3, "roles.a.egress", "link-local"),
    ("version = 1\n[roles.a]\negress = ['pypi.org:443']", 3, "roles.a.egress", "not names"),
    ("version = 1\n[roles.a]\negress_hosts = 'pypi.org'", 3, "roles.a.egress_hosts", "a list of host names"),
    ("version = 1\n[roles.a]\negress_hosts = [443]", 3, "roles.a.egress_hosts", "a list of host names"),
    ("version = 1\n[roles.a]\negress_hosts = ['*']", 3, "roles.a.egress_hosts", "no host name"),
    ("version = 1\n[roles.a]\negress_hosts = ['*.org']", 3, "roles.a.egress_hosts", "top-level domain"),
    ("version = 1\n[roles.a]\negress_hosts = ['pypi']", 3, "roles.a.egress_hosts", "has no dot"),
    ("version = 1\n[roles.a]\negress_hosts = ['py*.org']", 3, "roles.a.egress_hosts", "'*.pypi.org'"),
    ("version = 1\n[roles.a]\negress_hosts = ['pypi.org.']", 3, "roles.a.egress_hosts", "no host name"),
    ("version = 1\n[roles.a]\negress_hosts = ['']", 3, "roles.a.egress_hosts", "no host name"),
    ("version = 1\n[roles.a]\negress_hosts = ['203.0.113.7:443']", 3, "roles.a.egress_hosts", "written in egress"),
    ("version = 1\n[roles.a]\negress_hosts = ['[2001:db8::1]:443']", 3, "roles.a.egress_hosts", "written in egress"),
    ("version = 1\n[roles.a]\negress_hosts = ['a.0x7f']", 3, "roles.a.egress_hosts", "written in egress"),
    ("version = 1\n[roles.a]\negress_hosts = ['https://pypi.org/simple']", 3, "roles.a.egress_hosts", "'pypi.org'"),
    ("version = 1\n[roles.a]\negress_hosts = ['pypi.org:']", 3, "roles.a.egress_hosts", "no ports"),
    ("version = 1\n[roles.a]\negress_hosts = ['pypi.org:0']", 3, "roles.a.egress_hosts", "between 1 and"),
    ("version = 1\n[roles.a]\negress_hosts = ['pypi.org:443,https']", 3, "roles.a.egress_hosts", "'https'"),
    ("version = 1\n[roles.a]\negress_hosts = ['m\u00fcnchen.de']", 3, "roles.a.egress_hosts", "'xn--mnchen-3ya.de'"),
    ("version = 1\n[roles.a]\ndeny.egress_hosts = ['a b.org']", 3, "roles.a.deny.egress_hosts", "no host name"),
    ("version = 1\nrevoked_keys = ['MD5:00']", 2, "revoked_keys.0", "ssh-keygen -lf"),
    ("version = 1\n[certificate_authorities.c]\npublic_key = 'ssh-rsa AAAA'", 3, "certificate_authorities.c.public_key",
     "usable key"),
    ("version = 1\n[roles.A]", 2, "roles.A", "does not match"),
    ("version = 1\n[roles.b]\n[[grants]]\nusers = ['../x']\nroles = ['b']", 4, "grants.0.users.0", "does not match"),
    # its own tests
    ("version = 1\n[[tests]]\nuser = 'a'\nallow = ['fly']", 4, "tests.0.allow.0", "is no question"),
    ("version = 1\n[[tests]]\nuser = 'a'\nallow = ['login']", 4, "tests.0", "'login' must be allowed"),
    ("version = 1\ndefault_roles = ['m']\n[roles.m]\n[[tests]]\nuser = 'a'\ndeny = ['login']", 6, "tests.0",
     "must be denied"),
    ("version = 1\ndefault_roles = ['m']\n[roles.m]\nuntil = 2020-01-01\n[[tests]]\nuser = 'a'\ndeny = ['login']", 5,
     "tests.0", "must say 'at'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "words"), FAULTS)
def test_a_fault_names_file_line_and_key(text: str, line: int, key: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "site.toml")
    error = caught.value
    assert (error.file, error.line, error.key) == ("site.toml", line, key)
    assert words in error.message
    assert str(error).startswith(f"site.toml:{line}: " if line else "site.toml: ")


SHIPPED = [DEFAULT_POLICY, *EXAMPLES]
OFFERED = re.compile(r"^# ([a-z_]+) = .*$", re.MULTILINE)
OFFERS = [(path, match) for path in SHIPPED for match in OFFERED.finditer(path.read_text())]


@pytest.mark.parametrize(("path", "offer"), OFFERS, ids=[f"{path.stem}-{match[1]}" for path, match in OFFERS])
def test_a_line_that_a_shipped_policy_offers_as_a_comment_works(path: Path, offer: re.Match[str]) -> None:
    """Taken in place of the one that is in force, and nothing else touched."""
    others = re.sub(rf"^{offer[1]} = .*$", "", path.read_text(), count=1, flags=re.MULTILINE)
    assert offer[0] in others
    parse_policy(others.replace(offer[0], offer[0].removeprefix("# ")), path.name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_policy_passes_its_own_tests(path: Path) -> None:
    """Each asks enough of itself, in both directions, for its tests to mean something."""
    policy = load_policy(path)
    results = run_policy_tests(policy)
    assert all(result.passed for result in results)
    assert sum(result.must_allow for result in results) >= 7
    assert sum(not result.must_allow for result in results) >= 10


def test_three_examples_are_shipped() -> None:
    assert [path.stem for path in EXAMPLES] == ["class", "company", "research-group"]


@pytest.mark.parametrize("path", [DEFAULT_POLICY, *EXAMPLES], ids=lambda path: path.stem)
def test_every_key_of_a_shipped_policy_has_its_line(path: Path) -> None:
    """The line that a rule names holds the key that the rule names."""
    policy = load_policy(path)
    lines = path.read_text().splitlines()
    options = [(f"roles.{name}", option) for name, role in policy.roles.items() for option in role.model_fields_set]
    for table, option in options:
        name = "from" if option == "from_" else option
        line = lines[policy.line(f"{table}.{name}") - 1]
        assert line.startswith((name, f"[{table}.{name}]")), (table, option, line)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"version = 1\n# \xe9\n")
    with pytest.raises(PolicyError, match=r"latin\.toml:2: not UTF-8"):
        load_policy(tmp_path / "latin.toml")


def test_a_policy_can_be_read_without_its_tests() -> None:
    """`devgw policy test` shows every failure, not the first."""
    policy = parse_untested("version = 1\n[[tests]]\nuser = 'a'\nallow = ['login', 'shell']\ndeny = ['exec']", "p.toml")
    assert [(result.question, result.passed) for result in run_policy_tests(policy)] == [
        ("login", False),
        ("shell", False),
        ("exec", True),
    ]
