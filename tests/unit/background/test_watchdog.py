"""A loop that dies is begun again, said in log and doctor; one that stands still is noticed."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from gateway.background import environment_monitor
from gateway.background.watchdog import Watchdog
from gateway.duties import DutyBoard, faults_of
from gateway.model import EnvironmentRef
from tests.fakes.recorder import MemoryRecorder
from tests.unit.background.test_background import Looks
from tests.unit.background.test_background import monitor as monitor_of

_SECONDS = 10


@pytest.fixture
def board(tmp_path: Path) -> DutyBoard:
    return DutyBoard(tmp_path / "duties.json")


def test_a_coroutine_that_dies_is_begun_again(board: DutyBoard, caplog: pytest.LogCaptureFixture) -> None:
    """As often as it dies, of whatever; it ends when it returns."""
    left = [RecursionError("deep"), OSError(5, "io")]

    async def work() -> None:
        if left:
            raise left.pop(0)

    asyncio.run(asyncio.wait_for(Watchdog(board, first_wait_seconds=0.001).keep("work", work), _SECONDS))
    assert left == []
    assert caplog.text.count("'work' died") == 2
    assert faults_of(board.file, time.time()).startswith("'work' died 2 times and was begun again: OSError")
    assert faults_of(board.file, time.time() + 3601) == ""


def test_a_cancelled_coroutine_stays_ended(board: DutyBoard) -> None:
    """The end of the process is no death."""

    async def cancelled() -> None:
        async def work() -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(Watchdog(board).keep("work", work))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancelled(), _SECONDS))
    assert faults_of(board.file, time.time()) == ""


def test_a_thread_that_dies_is_begun_again(board: DutyBoard) -> None:
    """So a GPU's critical error after a failed one still counts."""
    done, left = threading.Event(), [ValueError("x")]

    def work() -> None:
        if left:
            raise left.pop()
        done.set()

    Watchdog(board, first_wait_seconds=0.001).keep_thread("work", work, threading.Event())
    assert done.wait(_SECONDS)
    assert "'work' died once" in faults_of(board.file, time.time())


def test_a_loop_that_stands_still_is_noticed(board: DutyBoard) -> None:
    """Ten minutes without a round."""
    board.beat("rounds")
    assert faults_of(board.file, time.time() + 500) == ""
    assert "last went round 12 min ago" in faults_of(board.file, time.time() + 720)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"b": 1}}', '{"a": 3}'])
def test_a_damaged_file_is_said(board: DutyBoard, text: str) -> None:
    """In a line, never as an exception in the doctor."""
    board.file.write_text(text)
    assert "cannot be read" in faults_of(board.file, time.time())


def test_rounds_go_on_after_a_terminal_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails outside a round, here the bringing of a line, ends the rounds no more."""
    monkeypatch.setattr(environment_monitor, "_ROUND_SECONDS", 0.001)
    monkeypatch.setattr(environment_monitor, "watch_xids", lambda _on_critical, _stop: None)
    looks, enough, told = Looks(), asyncio.Event(), []

    def notify(_ref: EnvironmentRef, _line: str) -> None:
        told.append(1)
        if len(told) == 1:
            raise OSError(32, "broken pipe")
        enough.set()

    async def watched() -> None:
        watching = monitor_of(looks, MemoryRecorder(), set(), [[]])
        watching._watchdog = Watchdog(first_wait_seconds=0.001)
        task = asyncio.create_task(watching.run(notify))
        await asyncio.wait_for(enough.wait(), _SECONDS)
        task.cancel()

    asyncio.run(watched())
    assert len(told) >= 2
