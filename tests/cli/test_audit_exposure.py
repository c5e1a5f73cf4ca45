"""`devgw audit exposure`: what a pruned journal does not know any more is said before the lists."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.journal import Journal
from gateway.audit.policy_history import keep, loaded_event
from gateway.audit.segments import segments
from gateway.cli.program import run
from gateway.model import Actor
from policies.load import parse_policy
from tests.cli.site import Site

GATEWAY, NOW = Actor("gateway", "devgw"), datetime.now(UTC)
POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
images = ["*"]
max_environments = 1
datasets = ["imagenet"]
"""
SAID = "The journal was pruned and begins at"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of a journal, each record in a segment of its own."""
    journal = Journal(tmp_path / "copy", segment_bytes=1)
    journal.append(Event("user.created", GATEWAY, detail={"user": "bob"}, at=NOW - timedelta(days=400)))
    event = loaded_event(GATEWAY, Path("p"), keep(tmp_path / "copy/policies", POLICY), None, parse_policy(POLICY, "p"))
    journal.append(Event(event.code, GATEWAY, detail=event.detail, at=NOW - timedelta(days=3)))
    journal.close()
    return tmp_path / "copy"


def test_a_list_from_a_pruned_journal_says_that_it_is_not_whole(
    site: Site, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An auditor takes `nobody` for an answer."""
    line = ["audit", "exposure", "imagenet", "--since", f"{NOW - timedelta(days=2):%Y-%m-%d}", "--journal", str(copy)]
    assert run(line) == 0
    whole = capsys.readouterr().out
    assert "bob" in whole
    assert SAID not in whole
    segments(copy)[0].path.unlink()
    assert run(line) == 0
    pruned = capsys.readouterr().out
    assert "bob" not in pruned
    assert pruned.startswith(SAID)
    assert run([*line, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["known_since"]
