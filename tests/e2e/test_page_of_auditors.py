"""The auditor's pages through a real `ssh -L`: what each shows, to whom, and what a hostile recording does."""

import html
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

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
