"""`devgw audit log`: the lines as they stand in the journal, filters, and new ones as they are written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.cli.program import run
from gateway.model import Actor
from tests.cli.site import Site

ALICE = Actor("user", "alice", "SHA256:a", "192.0.2.7")


@pytest.fixture
def journal(site: Site) -> Journal:
    journal = Journal(site.directory / "state" / "journal")
    journal.append(Event("login.allowed", ALICE, "alice", "allowed", "r", detail={"x": "\x7f\u202e\x1b[2J"}))
    journal.append(Event("forward.denied", ALICE, "alice", "denied", "default deny", reference="k3v9k3v9k3"))
    return journal


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["audit", "log", *arguments]) == 0
    return capsys.readouterr().out


def test_json_lines_are_the_journals_own(site: Site, journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte, so that a reader may hash them."""
    (segment,) = (site.directory / "state" / "journal").glob("segment-*.jsonl")
    assert output(capsys, "-o", "json") == segment.read_text()


@pytest.mark.parametrize(
    ("flags", "codes"),
    [
        (["--denied"], ["forward.denied"]),
        (["--action", "login"], ["login.allowed"]),
        (["--reference", "k3v9k3v9k3"], ["forward.denied"]),
        (["--user", "alice"], ["login.allowed", "forward.denied"]),
        (["--user", "bob"], []),
        (["--since", "2999-01-01"], []),
        (["--until", "2999-01-01", "--action", "*.denied"], ["forward.denied"]),
    ],
)
def test_filters(journal: Journal, capsys: pytest.CaptureFixture[str], flags: list[str], codes: list[str]) -> None:
    """Each flag lets through what it names."""
    lines = output(capsys, "-o", "json", *flags).splitlines()
    assert [json.loads(line)["code"] for line in lines] == codes


def test_the_table_lets_no_record_act_on_the_terminal(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    """Control and bidi characters are shown as escapes."""
    shown = output(capsys, "--action", "login")
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_follow_shows_what_is_written_from_then_on_until_interrupted(site: Site, journal: Journal) -> None:
    """With --since also what was there; Ctrl-C ends it with 130."""
    command = [sys.executable, "-m", "gateway", "audit", "log", "-o", "json", "--follow", "--since", "2020-01-01"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert process.stdout is not None
    seen = [json.loads(process.stdout.readline())["code"] for _ in range(3)]
    journal.append(Event("connection.closed", ALICE, "alice"))
    seen.append(json.loads(process.stdout.readline())["code"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert seen == ["journal.opened", "login.allowed", "forward.denied", "connection.closed"]
    assert process.returncode == 130


def test_indexes_are_made_and_made_anew(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each sealed segment; one that differs from its records is named and replaced."""
    directory = site.directory / "state" / "journal"
    several = Journal(directory, segment_bytes=2000)
    for number in range(20):
        several.append(Event("forward.denied", ALICE, "alice", "denied", "default deny", reference=f"k3v9k3v{number}"))
    several.close()
    first = min(directory.glob("segment-*.jsonl"))
    for flags, expected in (([], "made"), ([], "was there"), (["--anew"], "was there")):
        capsys.readouterr()
        assert run(["audit", "index", "-o", "json", *flags]) == 0
        found = json.loads(capsys.readouterr().out)["segments"]
        assert {one["outcome"] for one in found} == {expected}
        assert len(found) == len(list(directory.glob("segment-*.jsonl"))) - 1 >= 3
    truth = first.read_bytes()
    first.chmod(0o600)
    shown = truth.replace(b'"reference":"k3v9k3v1"', b'"reference":"hidden!!"')
    status = first.stat()
    first.write_bytes(shown)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(["audit", "index", "--anew"]) == 0
    assert "an index that differed may have hidden records" in capsys.readouterr().err
    first.write_bytes(truth)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert output(capsys, "-o", "json", "--reference", "k3v9k3v1") == ""
    assert json.loads(output(capsys, "-o", "json", "--reference", "k3v9k3v1", "--whole"))["reference"] == "k3v9k3v1"


def test_a_journal_without_a_directory_is_said(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "index", "--journal", str(site.directory / "nowhere")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err
