"""What one gateway says, the terminals of all show; on both kinds of database."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.app.composition import App
from gateway.background.terminal_lines import TerminalLines
from gateway.config import load_settings
from gateway.model import EnvironmentRef
from gateway.store.database import Database
from gateway.store.terminal_lines import TerminalLineTable

ALICE = EnvironmentRef.parse("alice")


class Gateway:
    """One process of a gateway, and what its terminals show."""

    def __init__(self, url: str) -> None:
        self.shown: list[tuple[EnvironmentRef, str]] = []
        self.table = TerminalLineTable(Database(url))
        self.lines = TerminalLines(self.table, lambda ref, line: self.shown.append((ref, line)))


def test_each_line_is_shown_once_at_every_gateway(database_url: str) -> None:
    """And nothing that was said before a gateway began."""
    one, other = Gateway(database_url), Gateway(database_url)
    one.table.say(ALICE, "long ago")

    async def go() -> None:
        for gateway in (one, other):
            await gateway.lines.hear()
        one.lines.say(ALICE, "it stops in 30 min")
        await asyncio.gather(*one.lines._saying)
        one.lines.say(EnvironmentRef.parse("bob+two"), "your disk is nearly full")
        await asyncio.gather(*one.lines._saying)
        for _ in range(2):
            for gateway in (one, other):
                await gateway.lines.hear()

    asyncio.run(go())
    assert one.shown == other.shown
    assert [(str(ref), line) for ref, line in other.shown] == [
        ("alice", "it stops in 30 min"),
        ("bob+two", "your disk is nearly full"),
    ]


def test_old_lines_go_and_their_numbers_do_not_come_back(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that heard number 5 must not miss what is said after everything was removed."""
    gateway = Gateway(database_url)
    for number in range(3):
        gateway.table.say(ALICE, str(number))
    newest = gateway.table.newest()
    monkeypatch.setattr("gateway.store.terminal_lines._KEPT", timedelta(seconds=-1))
    gateway.table.say(ALICE, "removed with all before it")
    assert gateway.table.after(0) == []
    monkeypatch.undo()
    gateway.table.say(ALICE, "new")
    assert [(line.line, line.number > newest) for line in gateway.table.after(newest)] == [("new", True)]


def test_without_the_database_the_own_terminals_show_it(tmp_path: Path) -> None:
    """Those of this process alone, which the log says."""
    gateway = Gateway(f"sqlite:///{tmp_path}/absent/devgw.db")
    (tmp_path / "absent").write_text("no directory")

    async def go() -> None:
        gateway.lines.say(ALICE, "it stops now")
        await asyncio.gather(*gateway.lines._saying)

    asyncio.run(go())
    assert gateway.shown == [(ALICE, "it stops now")]


@pytest.mark.parametrize(("instance", "has_lines"), [("gw1", True), ("", False)])
def test_gateways_of_a_site_speak_through_the_database(tmp_path: Path, instance: str, has_lines: bool) -> None:
    """One alone needs no table: its processes have their parent."""
    variables = {"HOME": str(tmp_path), "DEVGW_CONFIG_DIR": str(tmp_path), "DEVGW_STATE_DIR": str(tmp_path)}
    site = {"DEVGW_SITE_INSTANCE": instance, "DEVGW_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1/none"}
    variables |= site if instance else {}
    app = App(load_settings(variables))
    assert (app.duties.terminal_lines(lambda _ref, _line: None) is not None) == has_lines
