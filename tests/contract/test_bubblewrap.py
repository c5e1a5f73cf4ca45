"""What only bubblewrap can get wrong: its supervisors, its refusals, and what it keeps on disk."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.bubblewrap import cgroups, probe
from gateway.engines.bubblewrap import engine as engine_module
from gateway.engines.bubblewrap.cgroups import UNLIMITED, find_cgroups
from gateway.engines.bubblewrap.engine import BubblewrapEngine
from gateway.engines.bubblewrap.records import Records
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef
from tests.contract.bubblewrap_subject import bubblewrap_under_test
from tests.contract.inside import wait_until
from tests.contract.subject import started

pytestmark = pytest.mark.engine

ALICE = EnvironmentRef.parse("alice")


def test_a_gateway_restart_keeps_sandboxes(tmp_path: Path) -> None:
    """Another engine object, as after a restart, finds it running, and can stop it."""
    with bubblewrap_under_test(tmp_path) as subject:
        spool = started(subject)
        after = BubblewrapEngine(tmp_path / "one", "one", PreparedRoots(tmp_path / "images"))
        assert after.observe(ALICE).running
        assert spool.run("echo still here").text == "still here\n"
        after.stop(ALICE, 10)
        assert subject.engine.observe(ALICE).exit_code == 7


def test_a_killed_supervisor_takes_its_sandbox_along(tmp_path: Path) -> None:
    """Nothing runs unsupervised, and the engine says what happened; it can be started again."""
    with bubblewrap_under_test(tmp_path) as subject:
        started(subject)
        running = Records(tmp_path / "one").of(ALICE).running()
        os.kill(running.supervisor.pid, signal.SIGKILL)
        wait_until(lambda: not running.first.is_alive(), "the kernel took the sandbox along")
        observed = subject.engine.observe(ALICE)
        assert (observed.running, observed.exit_code) == (False, 137)
        assert "cut off" in observed.detail
        subject.engine.start(ALICE)
        assert subject.engine.observe(ALICE).running


def test_an_environment_that_would_be_root_is_refused(tmp_path: Path) -> None:
    """Invariant 3."""
    with bubblewrap_under_test(tmp_path) as subject:
        with pytest.raises(EngineError) as refusal:
            subject.engine.create(replace(subject.spec(), uid=0))
        assert refusal.value.code == "engine.unconfined"
        assert subject.engine.observe_all() == []


def test_a_host_without_namespaces_is_refused_with_the_fix(tmp_path: Path) -> None:
    """A bwrap that may not make them stands for the host; nothing is started another way."""
    forbidden = tmp_path / "bwrap"
    forbidden.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    with pytest.raises(EngineError, match="No permissions to create a new namespace") as refusal:
        probe.require_namespaces(str(forbidden), None)
    assert refusal.value.code == "engine.no-namespaces"
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("switch", "value", "words"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
    ],
)
def test_the_fix_names_the_switch(tmp_path: Path, switch: str, value: str, words: str) -> None:
    (tmp_path / switch).parent.mkdir(parents=True)
    (tmp_path / switch).write_text(f"{value}\n")
    assert words in probe.fix(tmp_path)


def test_the_command_line_on_the_host_shows_no_path_and_no_variable(tmp_path: Path) -> None:
    """Any user of the host may read it with `ps`."""
    with bubblewrap_under_test(tmp_path) as subject:
        started(subject, variables={"SECRET": "in-no-argv"})
        first = Records(tmp_path / "one").of(ALICE).running().first.pid
        shown = subprocess.run(
            ["ps", "-o", "args=", "-p", str(first)], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert "bwrap" in shown
        assert "in-no-argv" not in shown
        assert str(tmp_path) not in shown


def test_a_host_without_cgroups_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are not in force are named in the report and on each environment; it runs all the same."""
    monkeypatch.setattr(engine_module, "find_cgroups", lambda: find_cgroups(tmp_path / "no-cgroup-is-mounted-here"))
    monkeypatch.setattr(cgroups, "_has_systemd", lambda: False)
    with bubblewrap_under_test(tmp_path) as subject:
        started(subject)
        assert UNLIMITED in subject.engine.report().notes
        assert subject.engine.observe(ALICE).caveats == (UNLIMITED,)


def test_a_host_with_cgroups_leaves_no_caveat(tmp_path: Path) -> None:
    """And the environment's own process is in them."""
    with bubblewrap_under_test(tmp_path) as subject:
        started(subject)
        running = Records(tmp_path / "one").of(ALICE).running()
        limited = find_cgroups().kind != "none"
        assert bool(running.cgroups) == limited
        assert subject.engine.observe(ALICE).caveats == (() if limited else (UNLIMITED,))
        for group in running.cgroups:
            assert str(running.first.pid) in (group / "cgroup.procs").read_text().split()


@pytest.mark.parametrize("name", ["with spaces", "ünïcode,comma:colon", "a-long-name/" * 20, "linked"])
def test_the_state_may_lie_anywhere(name: str, tmp_path: Path) -> None:
    """Under /tmp, with any character, behind a link, deeper than a socket's address is long: started, dialled, out."""
    directory = tmp_path / name
    if name == "linked":
        (tmp_path / "there").mkdir()
        directory.symlink_to("there")
    directory.mkdir(parents=True, exist_ok=True)
    with bubblewrap_under_test(directory) as subject:
        spool = started(subject, egress=subject.egress)
        assert subject.egress == Egress.NONE or "eth0" in spool.run("cat /proc/net/route").text
        with subject.serving(ALICE, "ssh", b"hello"), subject.engine.dial(ALICE, "ssh") as stream:
            stream.settimeout(10)
            assert stream.recv(5) == b"hello"
