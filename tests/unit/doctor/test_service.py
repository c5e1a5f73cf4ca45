"""The unit of systemd's as the doctor reads it: files in a tree that stands for `/`, programs in real directories."""

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.doctor.facts import ServiceFacts
from gateway.doctor.finding import Unasked
from gateway.doctor.gather.service import service_facts

ROOT = Path(__file__).parents[3]
_SHIPPED = (ROOT / "gateway/systemd/devgw.service").read_text()
_NOBODY = "nobody"
_PYTHON = "opt/python/bin/python3"


@pytest.fixture
def installed() -> Iterator[Path]:
    """A virtual environment that all may read, its Python elsewhere."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # all may enter /tmp, and pytest's own directory nobody
        root, mask = Path(made), os.umask(0o022)
        root.chmod(0o755)
        code = root / "venv/lib/python3.11/site-packages/gateway/__init__.py"
        for file in (root / _PYTHON, root / "venv/bin/devgw", code):
            file.parent.mkdir(parents=True)
            file.touch()
            file.chmod(0o755)
        (root / "venv/bin/python").symlink_to(root / _PYTHON)
        (root / "venv/bin/devgw").write_text(f"#!{root}/venv/bin/python\nimport gateway\n")
        os.umask(mask)
        yield root


def say(root: Path, *, user: str = "", program: Path | None = None, more: str = "") -> None:
    """Install the shipped unit, and beside it what an administrator would say with `systemctl edit`."""
    place = root / "lib/systemd/system/devgw.service"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(_SHIPPED)
    drop_in = root / "etc/systemd/system/devgw.service.d/override.conf"
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    start = f"ExecStart=\nExecStart=-{program} serve --port 22\n" if program else ""
    drop_in.write_text(f"[Service]\n{start}User={user}\n{more}")


def asked(root: Path) -> ServiceFacts:
    found = service_facts(root)
    assert isinstance(found, ServiceFacts)
    return found


def test_a_host_without_a_unit_has_nothing_to_say(tmp_path: Path) -> None:
    assert service_facts(tmp_path) is None
    say(tmp_path)
    (tmp_path / "lib/systemd/system/devgw.service").write_text("[Unit]\nDescription=masked\n")
    assert service_facts(tmp_path) is None


def test_the_last_word_of_the_drop_ins_counts(installed: Path) -> None:
    say(installed, user=_NOBODY, program=installed / "venv/bin/devgw")
    found = asked(installed)
    assert (found.account, found.program, found.obstacle) == (_NOBODY, installed / "venv/bin/devgw", "")
    later = installed / "run/systemd/system/devgw.service.d/z.conf"
    later.parent.mkdir(parents=True)
    later.write_text("[Install]\nUser=other\n[Service]\n# User=no\nUser=root\n")
    assert asked(installed).account == "root"
    hidden = installed / "usr/lib/systemd/system/devgw.service.d/override.conf"  # one of that name in /etc counts
    hidden.parent.mkdir(parents=True)
    hidden.write_text("[Service]\nExecStart=/never\n")
    assert asked(installed).program == installed / "venv/bin/devgw"


def test_a_program_that_is_not_there_is_named(installed: Path) -> None:
    """As after `uv tool install`, which does not put it where the shipped unit looks."""
    say(installed, program=installed / "elsewhere/devgw")
    found = asked(installed)
    assert found.is_absent
    assert found.obstacle == f"{installed}/elsewhere/devgw is not there"


@pytest.mark.parametrize(
    ("closed", "mode", "said"),
    [
        ("opt", 0o700, "may not enter {root}/opt (mode 0700)"),
        ("venv", 0o750, "may not enter {root}/venv (mode 0750)"),
        (_PYTHON, 0o744, "may not run {root}/opt/python/bin/python3 (mode 0744)"),
        ("venv/bin/devgw", 0o711, "may not run {root}/venv/bin/devgw (mode 0711)"),
        ("venv/lib/python3.11/site-packages/gateway/__init__.py", 0o600, "may not read {root}/venv/lib/"),
    ],
)
def test_what_another_account_cannot_reach_is_named(installed: Path, closed: str, mode: int, said: str) -> None:
    """A Python in a home, a home itself, or files that were installed with a close umask."""
    (installed / closed).chmod(mode)
    say(installed, user=_NOBODY, program=installed / "venv/bin/devgw")
    found = asked(installed)
    assert found.obstacle.startswith(f"the account {_NOBODY} {said.format(root=installed)}")
    assert not found.is_absent


def test_their_owner_reaches_all_of_it(installed: Path) -> None:
    """Such as a gateway of root's, whose Python may lie in a home."""
    (installed / "opt").chmod(0o700)
    say(installed, user=pwd.getpwuid(os.geteuid()).pw_name, program=installed / "venv/bin/devgw")
    assert asked(installed).obstacle == ""


def test_nothing_is_closed_to_root(installed: Path) -> None:
    (installed / _PYTHON).chmod(0)
    say(installed, program=installed / "venv/bin/devgw")
    assert asked(installed).obstacle == ""


def test_an_unknown_account_is_named(installed: Path) -> None:
    say(installed, user="no-such-account", program=installed / "venv/bin/devgw")
    assert asked(installed).obstacle == "there is no account no-such-account"


def test_homes_that_the_unit_hides_are_no_place_for_a_program(installed: Path) -> None:
    """Also for root, and where only the Python lies there."""
    (installed / "venv/bin/python").unlink()
    (installed / "venv/bin/python").symlink_to("/root/.pyenv/versions/3.11/bin/python3")
    say(installed, program=installed / "venv/bin/devgw", more="ProtectHome=yes\n")
    assert asked(installed).obstacle == "ProtectHome=yes hides /root from it"


def test_a_loop_of_links_has_an_end(installed: Path) -> None:
    python = installed / "venv/bin/python"
    python.unlink()
    python.symlink_to(python)
    say(installed, user=_NOBODY, program=installed / "venv/bin/devgw")
    assert asked(installed).obstacle


def test_what_may_not_be_read_is_not_called_well(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    say(installed, program=installed / "venv/bin/devgw")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert isinstance(service_facts(installed), Unasked)
