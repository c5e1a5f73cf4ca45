"""What others feel meanwhile: bob's keystrokes, a new login of his, and how soon carol is out when she is disabled."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from tests.soak.floods import Attacker

KEYSTROKE = bytes(64)
KEYSTROKE_SECONDS = 0.02
LOGIN_SECONDS = 1.0
"""Between two new logins."""
REVOCATION_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""For one answer; what takes longer is counted as this."""


@dataclass
class Felt:
    """Seconds that each took."""

    echoes: list[float] = field(default_factory=list)
    logins: list[float] = field(default_factory=list)
    revocations: list[float] = field(default_factory=list)


def share(values: list[float], part: float) -> float:
    """Return the value under which a part of all lie; infinite where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("inf")


class Typing(asyncssh.SSHClientSession[bytes]):
    """One message at a time, there and back."""

    def __init__(self) -> None:
        self.got = 0
        self.answered = asyncio.Event()

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self.got += len(data)
        if self.got >= len(KEYSTROKE):
            self.got = 0
            self.answered.set()


async def type_keys(bob: Attacker, felt: Felt) -> None:
    """Send a message every few milliseconds and note how long its echo takes."""
    connection = await bob.enter()
    session = Typing()
    channel, _ = await connection.create_session(lambda: session, "exec cat", encoding=None)
    while bob.goes_on(connection):
        began = time.monotonic()
        session.answered.clear()
        channel.write(KEYSTROKE)
        felt.echoes.append(await _timed(session.answered.wait(), began))
        await asyncio.sleep(KEYSTROKE_SECONDS)
    connection.abort()


async def log_in(bob: Attacker, felt: Felt) -> None:
    """Come in anew, from the TCP connection to the proved key."""
    while time.monotonic() < bob.until:
        began = time.monotonic()
        entering = asyncio.ensure_future(bob.enter())
        felt.logins.append(await _timed(entering, began))
        if entering.done() and not entering.cancelled() and not entering.exception():
            entering.result().abort()
        await asyncio.sleep(LOGIN_SECONDS)


async def be_shut_out(carol: Attacker, felt: Felt, tell: Callable[[str], None]) -> None:
    """Be disabled while connected, over and over; note when the connection ends."""
    while time.monotonic() < carol.until:
        tell("enable carol")
        try:
            connection = await carol.enter()
        except (OSError, asyncssh.Error):
            await asyncio.sleep(KEYSTROKE_SECONDS)  # not enabled yet
            continue
        began = time.monotonic()
        tell("disable carol")
        felt.revocations.append(await _timed(connection.wait_closed(), began))
        await asyncio.sleep(REVOCATION_SECONDS)


async def _timed(answer: "asyncio.Future[object] | object", began: float) -> float:
    try:
        await asyncio.wait_for(answer, PATIENCE_SECONDS)  # type: ignore[arg-type]  # a coroutine or a future
    except (TimeoutError, OSError, asyncssh.Error):
        return PATIENCE_SECONDS
    return time.monotonic() - began
