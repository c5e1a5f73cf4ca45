"""Live parts of the page ask again and again, for as many as look: what that costs the database, and how late it is."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from gateway.app.composition import App
from gateway.config import Settings
from gateway.model import Fingerprint, PublicKey, UserName
from gateway.page.claim import Claim, Seal
from gateway.page.desk.answers import KNOWN
from gateway.page.desk.desk import Desk
from gateway.page.desk.live_accounts import LiveAccounts
from gateway.readings import read_anew
from policies.requests import Subject

PARTS = (("/runs", "user", "runs.mine"), ("/sessions", "auditor", "sessions.live"))
"""Every view that asks again by itself, its level, and what it asks of the database."""
AUDITORS = tuple(f"auditor{number}" for number in range(12))
POLICY = """
version = 1
default_roles = ["auditor"]
[roles.auditor]
sessions = ["shell"]
page = "auditor"
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    made = App(Settings(config_dir=tmp_path, state_dir=tmp_path, run_dir=tmp_path / "run", cache_dir=tmp_path))
    (tmp_path / "policy.toml").write_text(POLICY)
    for name in AUDITORS:
        made.users.ensure(UserName(name), uid_start=200_000)
        made.users.add_key(UserName(name), key_of(name))
    yield made
    made.journal.close()


def key_of(name: str) -> PublicKey:
    return PublicKey(Fingerprint(f"SHA256:{name}"), "ssh-ed25519", 256, f"ssh-ed25519 {name}")


@contextmanager
def statements(app: App) -> Iterator[Counter[str]]:
    """Count what is asked of the database, by the table that it is asked of."""
    counted: Counter[str] = Counter()

    def count(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if not statement.startswith("BEGIN"):
            table = re.search(r"FROM (\w+)", statement)
            counted[table[1] if table else statement] += 1

    event.listen(app.database._engine, "before_cursor_execute", count)
    try:
        yield counted
    finally:
        event.remove(app.database._engine, "before_cursor_execute", count)


def test_every_viewer_together_costs_each_reading_once_a_second(app: App) -> None:
    """Twelve auditors with two live parts ask two thousand times; accounts are read once while nobody changes."""
    seal = Seal(app.settings.page_seal)
    desk = Desk(app, seal, KNOWN)
    lines = [
        seal.line(Claim(Subject(name, "192.0.2.7", "ssh-ed25519", 256, f"SHA256:{name}"), name, "0a1b")).decode()
        for name in AUDITORS
    ]

    def look(number: int) -> None:
        claim, (address, level, part) = lines[number % len(lines)], PARTS[number % 2]
        for ask, values in (("viewer.enter", {"level": level, "address": address}), (part, {})):
            told = desk.answer({"number": number, "claim": claim, "ask": ask, "values": values, "live": True})
            assert "answer" in told, told

    with statements(app) as first:
        for number in range(len(AUDITORS)):
            look(number)
    assert (first["users"], first["public_keys"]) == (len(AUDITORS), len(AUDITORS))
    with statements(app) as asked, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        list(pool.map(look, range(1000)))
        seconds = 2 + int(time.monotonic() - began)
    assert asked.keys() <= {"revision", "live_sessions", "environments"}
    assert max(asked.values(), default=0) <= seconds


def test_no_other_template_asks_again_by_itself() -> None:
    """The check of the journal does while it goes on, and reads no database."""
    templates = resources.files("gateway.page.web").joinpath("templates").iterdir()
    asking = {file.name for file in templates if "hx-trigger" in file.read_text()}
    assert asking == {"runs.html", "sessions.html", "journal_proof.html"}


def test_accounts_follow_each_change_of_users_and_keys(app: App) -> None:
    """A key that is removed, a user who is shut out, let in again, forgotten, or not there at all."""
    accounts, alice = LiveAccounts(app.database, app.users, seconds=0), UserName(AUDITORS[0])
    user, keys = accounts.get(alice)
    assert user is not None
    assert [key.fingerprint for key in keys] == [f"SHA256:{alice}"]
    app.users.remove_key(alice, f"SHA256:{alice}")
    assert accounts.get(alice)[1] == []
    for disabled in (True, False):
        app.users.set_disabled(alice, disabled=disabled)
        user, _ = accounts.get(alice)
        assert user is not None
        assert user.disabled is disabled
    app.users.forget(alice)
    assert accounts.get(alice)[0] is None
    assert accounts.get("nobody") == (None, [])


def test_an_act_through_the_page_is_seen_by_the_next_turn(app: App) -> None:
    """Another process's is, a second later; what this one has just done counts at once."""
    accounts, alice = LiveAccounts(app.database, app.users, seconds=3600), UserName(AUDITORS[0])
    accounts.get(alice)
    app.users.set_disabled(alice, disabled=True)
    user, _ = accounts.get(alice)
    assert user is not None
    assert not user.disabled
    read_anew()
    user, _ = accounts.get(alice)
    assert user is not None
    assert user.disabled
