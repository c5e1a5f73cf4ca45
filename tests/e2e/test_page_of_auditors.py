"""The auditor's pages through a real `ssh -L`: what each shows, to whom, and what a hostile recording does."""

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.store.database import Database
from gateway.store.sessions import LiveSessionTable
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.page_site import begin, browser, records

VIEWS = (
    "/gpus",
    "/sessions",
    "/sessions/past",
    "/recordings",
    "/recordings/search?text=loss",
    "/recordings/aaaaaaaaaa",
    "/recordings/aaaaaaaaaa/text",
    "/journal",
    "/journal?user=alice&since=1d",
    "/journal/proof",
    "/who-can",
    "/who-can?user=alice",
    "/who-can?question=shell",
    "/review",
    "/policies",
)
HOSTILE = '<script>alert("loss")</script>'


def record(directory: Path, reference: str, *shown: str, tail: str = "") -> Path:
    """Write a recording as the gateway does."""
    header = json.dumps({"version": 2, "width": 80, "height": 24})
    events = [json.dumps([float(number), "o", f"{text}\r\n"]) for number, text in enumerate(shown)]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"20261101T120000Z-{reference}.cast"
    path.write_text("\n".join([header, *events]) + "\n" + tail)
    return path


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    served = begin(tmp_path_factory.mktemp("gw"))
    try:
        kept = served.root / "state" / "recordings" / "alice"
        record(kept, "aaaaaaaaaa", "step 1 loss 2.5", HOSTILE, "\x1b[31mstep 2 loss 0.5\x1b[0m")
        record(kept, "bbbbbbbbbb", "cut off", tail='[2.0, "o", "never fini')
        yield served
    finally:
        served.stop()


@pytest.mark.parametrize("path", VIEWS)
def test_every_view_is_an_auditors_and_nobody_elses(path: str, gateway: GatewayProcess) -> None:
    """A user is refused, by policy, and that is written down."""
    with browser(gateway, "bob") as bob, browser(gateway, "alice") as alice:
        shown, refused = bob.get(path), alice.get(path)
    assert (shown.status_code, refused.status_code) == (200, 403)
    assert "<h1>" in shown.text
    assert "built-in" not in shown.text
    assert "loss" not in refused.text


def test_a_recording_is_found_opened_and_its_events_are_given_once_opened(gateway: GatewayProcess) -> None:
    """By the text that was shown; who looked is in the journal, and a connection that opened nothing gets nothing."""
    with browser(gateway, "bob") as bob, browser(gateway, "carol") as carol:
        found = bob.get("/recordings/search?text=loss+0.5").text
        assert "/recordings/aaaaaaaaaa" in found
        assert "step 2 loss 0.5" in found
        cast = bob.get("/recordings/aaaaaaaaaa/cast").text.splitlines()
        assert json.loads(cast[0]) == {"version": 2, "width": 80, "height": 24}
        assert json.loads(cast[1])[2] == "step 1 loss 2.5\r\n"
        assert carol.get("/recordings/cccccccccc").status_code == 404
    acts = {(one["actor"]["name"], one["detail"]["act"]) for one in records(gateway, "page.allowed")}
    assert {("bob", "recordings.search"), ("bob", "recordings.open")} <= acts


def test_what_a_terminal_showed_is_text_and_never_a_page(gateway: GatewayProcess) -> None:
    """In the list of matches, and as lines."""
    with browser(gateway, "bob") as bob:
        for path in ("/recordings/search?text=alert", "/recordings/aaaaaaaaaa/text"):
            text = bob.get(path).text
            assert HOSTILE not in text
            assert html.escape(HOSTILE, quote=False).replace('"', "&#34;") in text


def test_a_recording_that_is_cut_off_is_played_up_to_there(gateway: GatewayProcess) -> None:
    """And one that is removed while the list is looked at is said to be gone."""
    with browser(gateway, "bob") as bob:
        assert bob.get("/recordings/bbbbbbbbbb").status_code == 200
        lines = bob.get("/recordings/bbbbbbbbbb/cast").text.splitlines()
        assert [json.loads(line)[2] for line in lines[1:]] == ["cut off\r\n"]
        gone = record(gateway.root / "state" / "recordings" / "alice", "dddddddddd", "soon gone")
        assert "dddddddddd" in bob.get("/recordings").text
        gone.unlink()
        answer = bob.get("/recordings/dddddddddd")
        assert (answer.status_code, "there is no recording" in answer.text) == (404, True)


def test_a_recording_that_is_removed_while_it_plays_says_so_at_its_end(gateway: GatewayProcess) -> None:
    """What was given is played; the next piece is asked for long after the first was taken."""
    directory = gateway.root / "state" / "recordings" / "alice"
    path = record(directory, "eeeeeeeeee", *(f"{number} {'x' * 1000}" for number in range(40_000)))
    with browser(gateway, "bob") as bob:
        bob.get("/")
        address = f"{bob.origin}/recordings/eeeeeeeeee/cast"
        with bob.session.get(address, headers={"Sec-Fetch-Site": "same-origin"}, stream=True, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            path.unlink()
            *played, last = lines
    assert "0 xxx" in json.loads(played[0])[2]
    assert 0 < len(played) < 40_000
    at, kind, said = json.loads(last)
    assert (at, kind) == (json.loads(played[-1])[0], "o")
    assert "there is no recording" in said


def test_lists_of_ten_thousand_are_cut_and_searched(gateway: GatewayProcess) -> None:
    """Recordings and live connections: a hundred at a time, the last page is there, and one is found."""
    directory = gateway.root / "state" / "recordings" / "zoe"
    directory.mkdir(parents=True)
    for number in range(10_000):
        (directory / f"20261001T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-z{number:09}.cast").touch()
    table = LiveSessionTable(Database(f"sqlite:///{gateway.root / 'state' / 'devgw.db'}"), lambda _owner: True)
    with browser(gateway, "bob") as bob:
        bob.get("/")
        poll(lambda: sum(one.session.user == "bob" for one in table.all()) == 1, "bob in the list, once")
        [mine] = [one for one in table.all() if one.session.user == "bob"]
        many = [replace(mine.session, id=f"{number:08x}", user=f"w{number:05}") for number in range(10_000)]
        table.publish(mine.owner, many, [], [])
        try:
            for path, pages in (("/recordings?user=zoe", 100), ("/sessions?", 101)):
                first = bob.get(path).text
                assert f"Page 1 of {pages}" in first
                assert first.count("<tr>") <= 102
                assert f"Page {pages} of {pages}" in bob.get(f"{path}&page=99999").text
            assert "w09999" in bob.get("/sessions?search=w09999").text
        finally:
            table.publish(mine.owner, [], [one.id for one in many], [])


def test_what_differs_between_two_policies_is_shown_by_who_gained_what(gateway: GatewayProcess) -> None:
    """Of those that were in force: the texts are kept, and a policy that never was is refused."""
    policy = gateway.root / "etc" / "policy.toml"
    text, mark = policy.read_text(), len(records(gateway, "policy.loaded"))
    granted = '[[grants]]\nusers = ["alice"]\nroles = ["member", "auditor"]\n'
    try:
        policy.write_text(text + granted)
        poll(lambda: len(records(gateway, "policy.loaded")) > mark, "the policy")
    finally:
        policy.write_text(text)
        poll(lambda: len(records(gateway, "policy.loaded")) > mark + 1, "the policy of before")
    new = records(gateway, "policy.loaded")[mark]["detail"]["sha256"]
    old = records(gateway, "policy.loaded")[mark + 1]["detail"]["sha256"]
    with browser(gateway, "bob") as bob:
        history = bob.get("/policies").text
        assert f'href="/policies/{new}"' in history
        assert "auditor" in html.unescape(bob.get(f"/policies/{new}").text)
        shown = bob.get(f"/policies?old={old}&new={new}").text
        rows = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>", shown)
        assert ("alice", "gains", "have the page of an auditor") in rows
        assert {(who, verb) for who, verb, _what in rows} == {("alice", "gains")}
        never = bob.get(f"/policies?old={'0' * 64}&new={new}")
        assert (never.status_code, "policy" in never.text) == (409, True)


def test_the_journal_is_checked_on_request(gateway: GatewayProcess) -> None:
    """In a process of its own: what it found is on the page when it is done."""
    with browser(gateway, "bob") as bob:
        assert bob.post("/journal/check").status_code == 200
        page = poll(lambda: "ended" in (text := bob.get("/journal/proof").text) and text, "the end of the check")
        assert "records, from 1 to" in page


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/who-can?question=nonsense", "is no question"),
        ("/sessions/past?since=yesterdayish", "is no moment"),
        ("/policies/not-a-hash", "polic"),
        ("/recordings/search?text=", "there is nothing to search for"),
        ("/recordings?user=%3Cb%3E", "user name"),
    ],
)
def test_bad_input_is_one_line_with_a_hint(path: str, said: str, gateway: GatewayProcess) -> None:
    """And never a server's error."""
    with browser(gateway, "bob") as bob:
        answer = bob.get(path)
    assert 400 <= answer.status_code < 500
    assert said in html.unescape(answer.text)
