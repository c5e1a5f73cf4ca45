"""Recordings: asciicast v2, output only unless asked, capped, and played back."""

import json
import stat
from pathlib import Path

import pytest

from gateway.audit.recording import Recording, frames, play
from gateway.errors import JournalError
from tests.unit.audit.written_journals import NOON


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.cast"


def events(path: Path) -> list[list[object]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def test_a_recording_is_asciicast_v2(path: Path, clock: Clock) -> None:
    """The header has the size and the time; events have seconds since the start, a kind and text."""
    recording = Recording(path, width=80, height=24, began_at=NOON, title="alice", clock=clock)
    clock.now += 1.5
    recording.output(b"hello\r\n")
    recording.resize(120, 40)
    size = recording.close()
    header = json.loads(path.read_text().splitlines()[0])
    assert header == {"version": 2, "width": 80, "height": 24, "timestamp": int(NOON.timestamp()), "title": "alice"}
    assert events(path) == [[1.5, "o", "hello\r\n"], [1.5, "r", "120x40"]]
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (size, 0o600)


def test_a_character_split_over_two_reads_stays_whole(path: Path, clock: Clock) -> None:
    recording = Recording(path, width=80, height=24, began_at=NOON, clock=clock)
    euro = "€".encode()
    recording.output(euro[:1])
    recording.output(euro[1:] + b"\xff")
    recording.close()
    assert [event[2] for event in events(path)] == ["€\ufffd"]


def test_input_is_recorded_only_where_asked(path: Path, tmp_path: Path, clock: Clock) -> None:
    """Passwords are typed."""
    silent = Recording(path, width=80, height=24, began_at=NOON, clock=clock)
    silent.input(b"secret\r")
    silent.close()
    assert "secret" not in path.read_text()
    asked = Recording(tmp_path / "b.cast", width=80, height=24, began_at=NOON, clock=clock, record_input=True)
    asked.input(b"ls\r")
    asked.close()
    assert events(tmp_path / "b.cast") == [[0.0, "i", "ls\r"]]


def test_a_recording_stops_at_its_cap_and_says_so(path: Path, clock: Clock) -> None:
    recording = Recording(path, width=80, height=24, began_at=NOON, clock=clock, cap_bytes=1000)
    for _ in range(100):
        recording.output(b"x" * 100)
    recording.close()
    assert recording.is_full
    assert path.stat().st_size < 1200
    assert events(path)[-1][1:] == ["m", "recording stopped at 1000 bytes"]


def test_an_existing_file_or_link_is_never_written_to(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(JournalError) as caught:
        Recording(path, width=80, height=24, began_at=NOON)
    assert caught.value.code == "recording.unwritable"
    assert victim.read_text() == "precious"


def test_playing_keeps_the_pauses_but_not_the_long_ones(path: Path, clock: Clock) -> None:
    recording = Recording(path, width=80, height=24, began_at=NOON, clock=clock)
    for pause, text in ((0.5, b"a"), (60, b"b"), (1, b"c")):
        clock.now += pause
        recording.output(text)
    recording.close()
    assert list(frames(path)) == [(0.5, "a"), (2.0, "b"), (1.0, "c")]
    shown: list[str] = []
    waited: list[float] = []
    play(path, shown.append, waited.append, speed=2)
    assert (shown, waited) == (["a", "b", "c"], [0.25, 2.0, 0.5])


def test_a_recording_cut_by_a_crash_plays_to_its_end(path: Path, clock: Clock) -> None:
    recording = Recording(path, width=80, height=24, began_at=NOON, clock=clock)
    recording.output(b"a")
    recording.output(b"b")
    recording.close()
    path.write_bytes(path.read_bytes()[:-5])
    assert [text for _pause, text in frames(path)] == ["a"]


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"version": 1}\n', b"\xff\n", b'{"version": 2}\n[1]\n'])
def test_what_is_no_recording_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        list(frames(path))
    assert caught.value.code == "recording.unreadable"
