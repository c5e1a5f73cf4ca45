"""The Debian package: made by Debian's tools, installed in a tree, run there, removed and purged."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.version import VERSION
from tests.packages.debian_tree import DebianTree, debian_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
INSTALL = ("dpkg", "--force-confold", "-i")


@pytest.fixture(scope="module")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianTree]:
    """Return a Debian on which it is installed and initialised."""
    with debian_tree(tmp_path_factory.mktemp("trees") / "installed") as tree:
        installed = tree.run(*INSTALL, tree.bring(package))
        assert "'devgw init'" in installed.stdout
        tree.run("devgw", "init")
        yield tree


def test_it_runs(tree: DebianTree) -> None:
    assert tree.lines("devgw", "--version") == [f"devgw {VERSION}"]
    assert tree.lines("readlink", "-f", "/usr/bin/devgw") == ["/opt/devgw/bin/devgw"]


def test_doctor_finds_the_site_in_order(tree: DebianTree) -> None:
    """All of the gateway's code and the libraries it stands on are there; the host without an engine is its failure."""
    found = tree.run("devgw", "doctor", check=False)
    site = re.findall(r"^\s*(\w+)\s+(site\.\S+)", found.stdout, re.MULTILINE)
    assert len(site) > 5
    assert [name for state, name in site if state != "ok"] == []
    assert found.returncode in {0, 2}, found.stdout + found.stderr


def test_doctor_names_what_keeps_the_units_account_from_the_program(tree: DebianTree) -> None:
    """A Python in root's home starts a gateway of root's, and no unit of another account."""
    folder = "/etc/systemd/system/devgw.service.d"
    script = f"""
    set -e
    mkdir -p {folder} /root/tools/bin
    printf '#!/usr/bin/python3\n' >/root/tools/bin/devgw
    chmod 755 /root/tools/bin/devgw
    chmod 700 /root
    printf '[Service]\nUser=nobody\nExecStart=\nExecStart=/root/tools/bin/devgw serve\n' >{folder}/own.conf
    """
    tree.run("sh", "-c", script)
    found = tree.run("devgw", "doctor", "-q", check=False)
    tree.run("rm", "-r", folder)
    assert "the account nobody may not enter /root (mode 0700)" in found.stdout
    assert found.returncode == 2


def test_systemd_takes_the_unit(tree: DebianTree) -> None:
    """It finds the program, and no directive is unknown to it."""
    verified = tree.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "devgw.service")
    assert verified.stderr == ""


def test_account_and_directories_are_made(tree: DebianTree) -> None:
    """The page's account has the uid that the setting names."""
    assert tree.lines("getent", "passwd", "devgw-page")[0].split(":")[2] == "199999"
    places = ["/etc/devgw", "/var/lib/devgw", "/var/cache/devgw", "/run/devgw"]
    assert tree.lines("stat", "-c", "%a %U", *places) == ["700 root"] * 4


def test_nothing_in_it_is_anybodys_but_roots(tree: DebianTree) -> None:
    """No file of another account, none that others may write, none with the rights of its owner."""
    assert (
        tree.lines(
            "find", "/opt/devgw", "(", "-not", "-user", "root", "-o", "-perm", "/6022", ")", "-not", "-type", "l"
        )
        == []
    )


def test_nothing_is_written_beside_the_programs(tree: DebianTree) -> None:
    """What ran is what was shipped, and no file there is unknown to dpkg."""
    tree.run("devgw", "doctor", check=False)
    assert tree.run("dpkg", "--verify", "devgw").stdout == ""
    shipped = set(tree.lines("dpkg", "-L", "devgw"))
    assert [path for path in tree.lines("find", "/opt/devgw", "-type", "f") if path not in shipped] == []


def test_it_names_no_directory_of_where_it_was_made(tree: DebianTree) -> None:
    places = f"/tmp/tmp\\.|/root/|{ROOT}/"
    said = tree.run("grep", "-rlE", places, "/opt/devgw/bin", "/opt/devgw/pyvenv.cfg", check=False)
    assert said.stdout == ""


def test_removal_leaves_what_was_made_with_it_and_purge_leaves_the_state(package: Path, tmp_path: Path) -> None:
    """Purge asks nothing; users' files, the journal and the keys are nobody's to throw away unasked."""
    with debian_tree(tmp_path / "tree") as tree:
        deb = tree.bring(package)
        tree.run(*INSTALL, deb)
        tree.run("devgw", "init")
        tree.run("dpkg", "-r", "devgw")
        kept = ["/etc/devgw/devgw.toml", "/var/lib/devgw/keys"]
        assert tree.lines("ls", "-d", *kept) == kept
        assert tree.run("test", "-e", "/opt/devgw", check=False).returncode == 1
        tree.run(*INSTALL, deb)
        purged = tree.run("dpkg", "-P", "devgw")
        assert "stay in /var/lib/devgw" in purged.stdout
        assert tree.lines("ls", "-d", "/var/lib/devgw/keys") == ["/var/lib/devgw/keys"]
        for gone in ("/etc/devgw", "/var/cache/devgw", "/run/devgw", "/opt/devgw"):
            assert tree.run("test", "-e", gone, check=False).returncode == 1, gone
        assert tree.run("getent", "passwd", "devgw-page", check=False).returncode == 2


def test_purge_of_what_was_never_used_leaves_nothing(package: Path, tmp_path: Path) -> None:
    with debian_tree(tmp_path / "tree") as tree:
        before = tree.lines("ls", "-A", "/etc", "/var/lib", "/var/cache", "/opt", "/run", "/usr/bin")
        tree.run(*INSTALL, tree.bring(package))
        tree.run("dpkg", "-P", "devgw")
        tree.run("mkdir", "-p", "/opt")  # dpkg takes an empty one along, for it is no other package's
        after = tree.lines("ls", "-A", "/etc", "/var/lib", "/var/cache", "/opt", "/run", "/usr/bin")
        backups = {
            "passwd-",
            "group-",
            "shadow-",
            "gshadow-",
            "subuid-",
            "subgid-",
        }  # of whoever changed an account last
        assert set(after) - set(before) <= backups
        assert set(before) <= set(after)
