"""Ansible's role on a host of its own: Debian's systemd and sshd in namespaces, ansible-core from the index."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.version import VERSION
from tests.packages.installers.managed_site import ROOT, ManagedSite, Outcome
from tests.packages.installers.namespace_host import namespace_host
from tests.packages.installers.package_index import make_venv
from tests.support.gateway_process import poll

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEVGW = "/opt/devgw/bin/devgw"
POLICY = (ROOT / "policies/default.toml").read_text()
SETTINGS = {"server": {"port": 2222, "public_host": "gw.example.org"}, "engine": {"kind": "bubblewrap"}}


@pytest.fixture(scope="module")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of ansible-core, in a virtual environment that is thrown away."""
    return make_venv(tmp_path_factory.mktemp("ansible") / "venv", "ansible-core")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return three public keys."""
    folder = tmp_path_factory.mktemp("keys")
    for number in range(3):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"key{number}", "-f", str(folder / str(number))]
        subprocess.run(command, check=True, timeout=60)
    return [(folder / f"{number}.pub").read_text() for number in range(3)]


@contextmanager
def managed(programs: Path) -> Iterator[ManagedSite]:
    """Yield a bare host under Ansible; ssh's own sockets want a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made, namespace_host(Path(made) / "host") as host:
        yield ManagedSite(host, programs, Path(made))


@pytest.fixture(scope="module")
def bare(ansible: Path, package: Path, keys: list[str]) -> Iterator[ManagedSite]:
    """Return a host that has no devgw yet, and what it shall have."""
    with managed(ansible) as site:
        policy = site.directory / "policy.toml"
        policy.write_text(POLICY)
        site.variables = {
            "devgw_deb": str(package),
            "devgw_settings": SETTINGS,
            "devgw_policy": str(policy),
            "devgw_users": [
                {"name": "alice", "keys": keys[:2]},
                {"name": "bruno", "keys": keys[2:], "state": "disabled"},
            ],
        }
        yield site


@pytest.fixture(scope="module")
def foreseen(bare: ManagedSite) -> Outcome:
    """Return what check mode says before anything is there."""
    outcome = bare.play("--check", "--diff")
    for place in ("/opt/devgw", "/etc/devgw", "/var/lib/devgw"):
        assert not bare.host.path(place).exists()
    return outcome


@pytest.fixture(scope="module")
def first(bare: ManagedSite, foreseen: Outcome) -> Outcome:
    """Return the first run."""
    return bare.play()


@pytest.fixture
def site(bare: ManagedSite, first: Outcome) -> ManagedSite:
    """Return the host after the first run."""
    assert first.code == 0, first.text
    return bare


def process_of(site: ManagedSite) -> str:
    return site.host.run("systemctl", "show", "--property=MainPID", "--value", "devgw.service").stdout.strip()


def people(site: ManagedSite) -> dict[str, tuple[bool, set[str]]]:
    """Return who is shut out, and the keys of each."""
    listed = json.loads(site.host.run(DEVGW, "user", "list", "-o", "json").stdout)["users"]
    return {one["name"]: (one["disabled"], {key["line"] for key in one["public_keys"]}) for one in listed}


def blob(line: str) -> str:
    return " ".join(line.split()[:2])


def test_check_mode_on_a_bare_host_says_what_would_come(foreseen: Outcome) -> None:
    assert foreseen.code == 0, foreseen.text
    wanted = {"Install the package", "Put the settings in place", "Put the policy in place", "Say what would be done"}
    assert wanted <= set(foreseen.changed), foreseen.text


def test_the_first_run_makes_a_gateway_that_serves(site: ManagedSite, keys: list[str]) -> None:
    """The unit is enabled and systemd says that the port is open; people are known by their keys."""
    assert site.host.run("systemctl", "is-enabled", "devgw.service").stdout == "enabled\n"
    assert site.host.run("systemctl", "is-active", "devgw.service").stdout == "active\n"
    assert site.host.run(DEVGW, "--version").stdout == f"devgw {VERSION}\n"
    assert people(site) == {
        "alice": (False, {blob(key) for key in keys[:2]}),
        "bruno": (True, {blob(keys[2])}),
    }
    told = json.loads(site.host.run(DEVGW, "doctor", "-o", "json", check=False).stdout)["findings"]
    asked = [one for one in told if one["check"].startswith("site.")]
    assert [one for one in asked if one["level"] != "ok"] == []
    assert {"site.service", "site.port"} <= {one["check"] for one in asked}
    modes = site.host.run("stat", "-c", "%a %U", "/etc/devgw", "/etc/devgw/devgw.toml", "/etc/devgw/policy.toml")
    assert modes.stdout.splitlines() == ["700 root", "600 root", "600 root"]


def test_a_second_run_changes_nothing(site: ManagedSite) -> None:
    """Nor would a third, says check mode; and nothing is left behind in /tmp."""
    before = process_of(site)
    for flags in ((), ("--check",)):
        again = site.play(*flags)
        assert (again.code, again.changed) == (0, []), again.text
    assert process_of(site) == before
    assert list(site.host.path("/tmp").glob("devgw-*")) == []


def test_a_changed_setting_changes_that_file_and_restarts_the_gateway(site: ManagedSite) -> None:
    before, file = process_of(site), site.host.path("/etc/devgw/devgw.toml")
    changed = SETTINGS | {"server": {**SETTINGS["server"], "max_sessions": 7}}
    wanted = ["Put the settings in place", "Restart devgw"]
    foreseen = site.play("--check", devgw_settings=changed)
    assert (foreseen.code, foreseen.changed) == (0, wanted), foreseen.text
    assert "max_sessions" not in file.read_text()
    assert process_of(site) == before
    done = site.play(devgw_settings=changed)
    assert (done.code, done.changed) == (0, wanted), done.text
    assert "max_sessions = 7" in file.read_text()
    assert process_of(site) not in {before, "0"}
    assert site.play().changed == wanted  # and back


def test_a_changed_policy_is_taken_without_a_restart(site: ManagedSite) -> None:
    """The gateway notices by itself, and journals it."""
    before, policy = process_of(site), site.directory / "policy.toml"
    loaded = lambda: site.host.run(DEVGW, "audit", "log", "--action", "policy.loaded", "-q").stdout.count("\n")  # noqa: E731
    count = loaded()
    policy.write_text(f"{POLICY}\n# another word\n")
    done = site.play()
    assert (done.code, done.changed) == (0, ["Put the policy in place"]), done.text
    poll(lambda: loaded() > count, "a record of the new policy")
    assert process_of(site) == before
    policy.write_text(POLICY)
    assert site.play().changed == ["Put the policy in place"]


@pytest.mark.parametrize(
    ("policy", "settings", "said"),
    [
        (POLICY.replace("sessions =", "sesions =", 1), SETTINGS, "unknown key; did you mean"),
        (f'{POLICY}\n[[tests]]\nuser = "alice"\nallow = ["egress internet"]\n', SETTINGS, "its own test fails"),
        (POLICY, SETTINGS | {"server": {"prot": 22}}, "server.prot: is not a setting"),
        (POLICY, SETTINGS | {"server": {"notebook_port": 8889}}, "notebook_port is not server.notebook_port"),
    ],
    ids=["a typing error", "a test of its own", "a setting", "both together"],
)
@pytest.mark.parametrize("flags", [(), ("--check",)], ids=["run", "check"])
def test_what_devgw_refuses_never_takes_the_place_of_what_is_there(
    site: ManagedSite, policy: str, settings: dict[str, object], said: str, flags: tuple[str, ...]
) -> None:
    """Settings and policy are one: neither is written, the gateway goes on, and the message is devgw's own."""
    places = [site.host.path(f"/etc/devgw/{name}") for name in ("devgw.toml", "policy.toml")]
    before, process = [place.read_text() for place in places], process_of(site)
    faulty = site.directory / "faulty.toml"
    faulty.write_text(policy)
    refused = site.play(*flags, devgw_policy=str(faulty), devgw_settings=settings)
    assert (refused.code, refused.changed) == (2, []), refused.text
    assert said in refused.text
    assert [place.read_text() for place in places] == before
    assert process_of(site) == process
    assert list(site.host.path("/tmp").glob("devgw-*")) == []


def test_people_follow_the_list(site: ManagedSite, keys: list[str]) -> None:
    """A new key comes, the old one goes, a door opens; check mode says each and does none of it."""
    changed = [{"name": "alice", "keys": keys[:1]}, {"name": "bruno", "keys": keys[2:]}, {"name": "dora"}]
    before = people(site)
    foreseen = site.play("--check", devgw_users=changed)
    assert foreseen.changed == ["Say what would be done"], foreseen.text
    assert people(site) == before
    done = site.play(devgw_users=changed)
    assert done.changed == ["Make people known, let keys in and shut keys out"], done.text
    assert people(site) == {
        "alice": (False, {blob(keys[0])}),
        "bruno": (False, {blob(keys[2])}),
        "dora": (False, set()),
    }
    assert site.play(devgw_users=changed).changed == []
    assert site.play().code == 0  # and back; who is not in the list is left alone
    assert people(site) == before | {"dora": (False, set())}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"devgw_deb": ""}, "devgw_deb is empty: it names a file on the control node"),
        ({"devgw_install_from": "rpm"}, "value of devgw_install_from must be one of: deb, wheel, none"),
        ({"devgw_users": [{"name": "alice", "keys": ["rubbish"]}]}, "'rubbish' of alice is no public key"),
        ({"devgw_settings": {"server": {"port": None}}}, "server.port is None"),
        ({"devgw_deb": "/no/such/devgw_9.9.9_amd64.deb"}, "/no/such/devgw_9.9.9_amd64.deb"),
    ],
)
def test_a_bad_variable_is_named(site: ManagedSite, variables: dict[str, object], said: str) -> None:
    refused = site.play(**variables)
    assert (refused.code, refused.changed) == (2, []), refused.text
    assert said in refused.text


def test_the_wheel_is_installed_the_same_way(
    ansible: Path, wheel: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """From a folder of wheels on a host without an index: an environment at the lock's versions, unit and account."""
    wheels = tmp_path_factory.mktemp("wheels")
    _download(wheels)
    with managed(ansible) as site:
        shutil.copytree(wheels, site.host.path("/srv/wheels"))
        site.variables = {
            "devgw_install_from": "wheel",
            "devgw_wheel": str(wheel[0]),
            "devgw_constraints": str(wheel[1]),
            "devgw_extras": ["postgresql"],
            "devgw_pip_arguments": ["--no-index", "--find-links", "/srv/wheels"],
            "devgw_settings": SETTINGS,
        }
        foreseen = site.play("--check")
        assert (foreseen.code, site.host.path("/opt/devgw").exists()) == (0, False), foreseen.text
        done = site.play()
        assert done.code == 0, done.text
        assert site.host.run("systemctl", "is-active", "devgw.service").stdout == "active\n"
        assert site.host.run("devgw", "--version").stdout == f"devgw {VERSION}\n"
        assert site.host.run("getent", "passwd", "devgw-page").stdout.split(":")[2] == "199999"
        again = site.play()
        assert (again.code, again.changed) == (0, []), again.text
        more = site.play(devgw_extras=["postgresql", "timestamps"])
        assert "Install the packages" in more.changed, more.text
        site.host.run("/opt/devgw/bin/python", "-c", "import psycopg, rfc3161_client")


def _download(into: Path) -> None:
    """Fetch the lock's packages by their hashes."""
    locks = into.with_name("locks")
    context = [sys.executable, str(ROOT / "containers/gateway/context.py"), "--locks", str(locks)]
    subprocess.run([*context, "--extras", "postgresql", "timestamps"], check=True, timeout=60)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "--no-deps", "-d", str(into)]
    subprocess.run([*pip, "-r", str(locks / "run.lock")], check=True, timeout=900)
