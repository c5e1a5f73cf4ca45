"""Recordings are found by time and by what they showed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.recording import Recording, play
from gateway.audit.recordings import kept_recordings, recording_at, search
from gateway.model import UserName

NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)


def record(directory: Path, *shown: tuple[float, str], user: str = "alice", reference: str = "k3v9q2m8ab") -> Path:
    """Write a recording that began at noon; each text is shown so many seconds later."""
    now = 0.0
    folder = directory / user
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NOON:%Y%m%dT%H%M%SZ}-{reference}.cast"
    recording = Recording(path, width=80, height=24, began_at=NOON, clock=lambda: now)
    for at, text in shown:
        now = at
        recording.output(text.encode())
    recording.close()
    return path


def lines(directory: Path, text: str) -> list[tuple[float, str]]:
    (one,) = kept_recordings(directory)
    return [((match.at - NOON).total_seconds(), match.line) for match in search(one, text)]


@pytest.mark.parametrize(
    "shown",
    ["nvidia-smi", "n\x1b[1;32mvid\x1b[0mia-smi", "nvidix\b \ba-smi", "\x1b]0;title\x07nvidia-smi", "NVIDIA-SMI"],
    ids=["plain", "coloured", "mistyped", "with a title", "shouted"],
)
def test_a_line_is_found_as_the_eye_saw_it(tmp_path: Path, shown: str) -> None:
    record(tmp_path, (1, "$ "), (2, shown[:5]), (3, shown[5:]), (4, "\r\nother\r\n"))
    ((at, line),) = lines(tmp_path, "nvidia-smi")
    assert (at, line.casefold()) == (4.0, "$ nvidia-smi")


def test_what_drives_the_terminal_is_no_text(tmp_path: Path) -> None:
    record(tmp_path, (1, "\x1b[31mred\x1b[0m\r\n"))
    assert lines(tmp_path, "31m") == []


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    record(tmp_path, (1, "first\n"), (7, "last without an end"))
    assert lines(tmp_path, "last") == [(7.0, "last without an end")]


def test_a_line_without_end_is_looked_through_in_pieces(tmp_path: Path) -> None:
    """The text may lie across two pieces; memory stays bounded."""
    record(tmp_path, (1, "x" * 65_533 + "need"), (2, "le" + "y" * 70_000))
    assert [at for at, _line in lines(tmp_path, "needle")] == [2.0]


def test_of_a_user_the_one_that_went_on_at_a_moment(tmp_path: Path) -> None:
    record(tmp_path, (30, "end"))
    record(tmp_path, (600, "end"), user="bob", reference="bbbbbbbbbb")
    (tmp_path / "alice" / "notes.txt").write_text("no recording")
    kept = kept_recordings(tmp_path, UserName("alice"))
    assert [one.reference for one in kept] == ["k3v9q2m8ab"]
    assert recording_at(kept, NOON + timedelta(seconds=20)) == kept[0]
    assert recording_at(kept, NOON + timedelta(seconds=40)) is None
    assert recording_at(kept, NOON - timedelta(seconds=1)) is None


def test_playing_from_a_moment_shows_what_came_before_at_once(tmp_path: Path) -> None:
    path = record(tmp_path, (1, "a"), (10, "b"), (11, "c"))
    shown: list[str] = []
    waited: list[float] = []
    play(path, shown.append, waited.append, skip_seconds=9.5)
    assert (shown, waited) == (["a", "b", "c"], [0.5, 1.0])
