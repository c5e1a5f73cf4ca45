"""A command of the gateway's own on a channel: drawn, drawn anew, ended by a key, and the user's screen given back."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gateway.errors import EngineError, UsageError
from gateway.model import EnvironmentRef
from gateway.ssh.services import Caller, Terminal
from gateway.ssh.session_channel.own_program import ENTER, LEAVE, OwnProgramRun, drawn, find_program
from policies.requests import Subject

ALICE = Caller(Subject("alice", "192.0.2.7", "ssh-ed25519", 256, "SHA256:a"), EnvironmentRef.parse("alice"), "0a")


class Side:
    """The user's side, with a terminal or without."""

    def __init__(self, terminal: Terminal | None) -> None:
        self.size = terminal
        self.written, self.told, self.is_full = bytearray(), [], False

    def write(self, data: bytes, _datatype: int | None) -> None:
        self.written += data

    def tell(self, line: str) -> None:
        self.told.append(line)

    def is_held_back(self) -> bool:
        return self.is_full

    def terminal(self) -> Terminal | None:
        return self.size


class Program:
    """Counts its pictures; `until` may hold one back."""

    def __init__(self, interval_seconds: float | None = 0.01) -> None:
        self.interval_seconds = interval_seconds
        self.pictures = 0
        self.until: asyncio.Event | None = None

    async def picture(self, terminal: Terminal | None) -> str:
        self.pictures += 1
        if self.until:
            await self.until.wait()
        return f"picture {self.pictures}\nof {terminal.columns if terminal else 'none'}"

    def start(self, _caller: Caller, words: Sequence[str]) -> "Program":
        if words:
            raise UsageError("option.unknown", f"what is {words[0]}", "leave it out")
        return self


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


def test_without_a_terminal_it_is_written_once() -> None:
    side = Side(None)
    assert asyncio.run(OwnProgramRun(side).run(Program().start, ALICE, "top")) == 0
    assert side.written == b"picture 1\nof none\n"


def test_what_is_no_picture_is_written_once_on_a_terminal_too() -> None:
    side = Side(Terminal(80, 24))
    assert asyncio.run(OwnProgramRun(side).run(Program(None).start, ALICE, "top")) == 0
    assert side.written == b"picture 1\r\nof none\r\n"


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03", b"\x04", b"abcq"])
def test_it_is_drawn_again_and_again_until_a_key_ends_it(key: bytes) -> None:
    side, program = Side(Terminal(80, 24)), Program()

    async def watch() -> int:
        run = OwnProgramRun(side)
        running = asyncio.create_task(run.run(program.start, ALICE, "top"))
        await until(lambda: program.pictures > 3)
        run.typed(b"xyz")
        assert not running.done()
        run.typed(key)
        return await running

    assert asyncio.run(watch()) == 0
    assert side.written.startswith(ENTER)
    assert side.written.endswith(LEAVE)
    assert side.written.count(LEAVE) == 1


def test_another_size_is_drawn_at_once() -> None:
    """Not only after the interval, which is long here."""
    side, program = Side(Terminal(80, 24)), Program(interval_seconds=600)

    async def watch() -> None:
        run = OwnProgramRun(side)
        running = asyncio.create_task(run.run(program.start, ALICE, "top"))
        await until(lambda: b"of 80" in side.written)
        side.size = Terminal(40, 10)
        run.resized()
        await until(lambda: b"of 40" in side.written)
        run.end()
        await running

    asyncio.run(watch())


def test_a_user_who_takes_nothing_is_sent_nothing() -> None:
    side, program = Side(Terminal(80, 24)), Program()

    async def watch() -> None:
        run = OwnProgramRun(side)
        running = asyncio.create_task(run.run(program.start, ALICE, "top"))
        await until(lambda: program.pictures > 1)
        side.is_full = True
        await asyncio.sleep(0.05)
        mark, drawn_before = len(side.written), program.pictures
        await asyncio.sleep(0.1)
        assert (len(side.written), program.pictures) == (mark, drawn_before)
        side.is_full = False
        await until(lambda: program.pictures > drawn_before)
        run.end()
        await running

    asyncio.run(watch())


def test_what_is_said_meanwhile_is_drawn_and_stays_afterwards() -> None:
    """A warning that the environment stops must not vanish with the picture."""
    side, program = Side(Terminal(80, 24)), Program(interval_seconds=600)

    async def watch() -> None:
        run = OwnProgramRun(side)
        assert not run.keeps("too early")
        running = asyncio.create_task(run.run(program.start, ALICE, "top"))
        await until(lambda: b"of 80" in side.written)
        assert run.keeps("it stops in 10 minutes")
        await until(lambda: b"devgw: it stops in 10 minutes" in side.written)
        run.end()
        await running
        assert not run.keeps("too late")

    asyncio.run(watch())
    assert side.told == ["it stops in 10 minutes"]


def test_a_picture_that_does_not_come_keeps_nobody() -> None:
    """An engine that hangs: q ends it all the same."""
    side, program = Side(Terminal(80, 24)), Program()

    async def watch() -> int:
        program.until = asyncio.Event()
        run = OwnProgramRun(side)
        running = asyncio.create_task(run.run(program.start, ALICE, "top"))
        await until(lambda: program.pictures == 1)
        run.typed(b"q")
        return await asyncio.wait_for(running, 20)

    assert asyncio.run(watch()) == 0
    assert side.written == ENTER + LEAVE


def test_a_failure_gives_the_screen_back_before_it_is_said() -> None:
    class Failing(Program):
        async def picture(self, terminal: Terminal | None) -> str:
            raise EngineError("engine.unreachable", "away")

    side = Side(Terminal(80, 24))
    with pytest.raises(EngineError):
        asyncio.run(OwnProgramRun(side).run(Failing().start, ALICE, "top"))
    assert side.written == ENTER + LEAVE


@pytest.mark.parametrize("command", ["top --fast", "top 'unfinished"])
def test_what_is_not_understood_is_said_with_the_exit_code_of_usage(command: str) -> None:
    side = Side(Terminal(80, 24))
    assert asyncio.run(OwnProgramRun(side).run(Program().start, ALICE, command)) == 2
    assert side.told
    assert side.written == b""


@pytest.mark.parametrize(
    ("command", "is_own"),
    [("top", True), (" top -o json", True), ("/usr/bin/top", False), ("topper", False), (" ", False)],
)
def test_a_program_is_found_by_its_first_word(command: str, is_own: bool) -> None:
    start = Program().start
    assert (find_program({"top": start}, command) is start) == is_own


def test_no_more_lines_are_drawn_than_there_are_rows() -> None:
    """One more would make the terminal scroll."""
    assert drawn("a\nb\nc\n", Terminal(80, 2)).count(b"\r\n") == 1
