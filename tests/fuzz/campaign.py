"""Cases by number: each is made from the seed and its number alone, so what is found at night can be tried by day.

Before login a case is a connection of its own. After login many cases share one, for as long as it survives them.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import asyncssh

from tests.fuzz.gateway_under_fire import GatewayUnderFire
from tests.fuzz.mutation import ANY, IN_PLACE, INTEGERS, mutated, shuffled
from tests.fuzz.packets import KEXINIT, UNIMPLEMENTED, packet
from tests.fuzz.recording import Handshake, channel_messages, handshakes, login

AT_ONCE = 8
HANG_SECONDS = 10.0
LISTEN_SECONDS = 0.003
"""Time for an answer before the next message: a key exchange that is hung up on is not fuzzed."""
CASES_PER_LOGIN = 150
CHANNELS_MIN = 2
USERS_AT_ONCE = 3
CHECK_EVERY = 250
GROWTH_MAX_BYTES = 48 << 20
BARRIER = 191
"""A message number of nobody's; the gateway answers that it does not know it (RFC 4253 §11.4)."""
_OPEN, _CONFIRMED, _FIRST_OF_CHANNEL, _CLOSE, _LAST_OF_CHANNEL = 90, 91, 93, 97, 100


class Finding(AssertionError):  # noqa: N818 - what a fuzzer looks for, not an error of its own
    """What the fuzzer found, and how to find it again."""


@dataclass
class Campaign:
    """One run against one gateway."""

    gateway: GatewayUnderFire
    seed: int
    cases: int = 0
    logins: int = 0
    _handshakes: list[Handshake] = field(default_factory=list)
    _messages: list[bytes] = field(default_factory=list)
    _baseline_bytes: int = 0

    async def begin(self) -> None:
        """Record what is to be changed."""
        self._handshakes = await handshakes(self.gateway)
        self._messages = await channel_messages(self.gateway)
        self._baseline_bytes = self.gateway.resident_bytes()

    def chance(self, number: int) -> Random:
        """Return the generator of one case."""
        return Random(f"{self.seed}:{number}")

    async def before_login(self, numbers: range) -> None:
        """Run cases that never log in, several at once."""
        for start in range(numbers.start, numbers.stop, CHECK_EVERY):
            batch = iter(range(start, min(start + CHECK_EVERY, numbers.stop)))
            await asyncio.gather(*(self._strangers(batch) for _ in range(AT_ONCE)))
            self.check(f"{start} to {start + CHECK_EVERY}")

    async def _strangers(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                await asyncio.wait_for(self._stranger(number), HANG_SECONDS)
            except TimeoutError as error:
                raise self._finding("the gateway does not hang up", str(number)) from error
            self.cases += 1

    async def _stranger(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        try:
            for part in self._stream(self.chance(number)):
                if writer.transport.is_closing():
                    break
                writer.write(part)
                await writer.drain()
                await _listen(reader)
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(65536):
                pass
        except OSError:
            pass  # it hung up with some of what was sent unread
        finally:
            writer.close()

    def _stream(self, chance: Random) -> list[bytes]:
        """Return the parts of one connection."""
        recorded = chance.choice(self._handshakes)
        payloads = shuffled(chance, recorded.payloads)
        if payloads and chance.random() < 0.8:
            at = chance.randrange(len(payloads))
            payloads[at] = mutated(chance, payloads[at])
        version = mutated(chance, recorded.version) if chance.random() < 0.1 else recorded.version
        parts = [version, *map(packet, payloads), recorded.sealed[: chance.randrange(2000)]]
        if chance.random() < 0.3:
            at = chance.randrange(len(parts))
            parts[at] = mutated(chance, parts[at])
        return [b"".join(parts)] if chance.random() < 0.3 else parts

    async def after_login(self, numbers: range) -> None:
        """Run cases on connections of alice's, a few at once; one that does not survive a case is replaced."""
        for start in range(numbers.start, numbers.stop, CHECK_EVERY):
            batch = iter(range(start, min(start + CHECK_EVERY, numbers.stop)))
            await asyncio.gather(*(self._users(batch) for _ in range(USERS_AT_ONCE)))
            self.check(f"{start} to {start + CHECK_EVERY}")

    async def _users(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            user = _Raw(await login(self.gateway))
            self.logins += 1
            try:
                await self._user(user, itertools.chain([number], itertools.islice(numbers, CASES_PER_LOGIN)))
            finally:
                await user.leave()

    async def _user(self, user: "_Raw", numbers: Iterator[int]) -> None:
        """Run cases on one connection for as long as it lives."""
        opens = [message for message in self._messages if message[0] == _OPEN]
        for number in numbers:
            if len(user.channels) < CHANNELS_MIN:
                user.say(opens)
                await user.has_channels()
            user.say(self._said(self.chance(number), user.channels))
            self.cases += 1
            if await user.is_heard():
                continue
            if not user.has_ended():
                raise self._finding("the gateway neither answers nor hangs up", str(number))
            return

    def _said(self, chance: Random, channels: list[int]) -> list[bytes]:
        """Return one to four messages that followed one another, addressed to channels that there are."""
        start = chance.randrange(len(self._messages))
        messages = [
            _addressed(chance, message, channels) for message in self._messages[start : start + chance.randrange(1, 5)]
        ]
        messages = shuffled(chance, messages) if chance.random() < 0.3 else messages
        if messages:
            at = chance.randrange(len(messages))
            gently = chance.random() < 0.75
            messages[at] = mutated(chance, messages[at], IN_PLACE if gently else ANY, keep=_head(messages[at], gently))
        return [message for message in messages if message]

    def check(self, what: str) -> None:
        """Hold that the gateway lives, has nothing to tell of and is no larger than it may be. Raises: Finding."""
        grown = self.gateway.peak_bytes() - self._baseline_bytes
        if grown > GROWTH_MAX_BYTES:
            raise self._finding(f"the gateway grew by {grown >> 20} MiB", what)
        if not self.gateway.holds_no_traceback():
            raise self._finding(f"the gateway's log:\n{self.gateway.log()[-4000:]}", what)

    def _finding(self, what: str, cases: str) -> Finding:
        return Finding(f"{what}\nfound by case {cases} of FUZZ_SEED={self.seed}")

    def report(self, began: float) -> str:
        """Say in one line what was done and what it took."""
        peak = self.gateway.peak_bytes()
        return (
            f"seed {self.seed}: {self.cases} cases, {self.logins} logins, {time.monotonic() - began:.0f} s, "
            f"peak {peak >> 20} MiB, grown by {(peak - self._baseline_bytes) / (1 << 20):.1f} MiB"
        )


async def _listen(reader: asyncio.StreamReader) -> None:
    try:
        async with asyncio.timeout(LISTEN_SECONDS):
            while await reader.read(65536):
                pass
    except TimeoutError:
        pass


def _head(message: bytes, gently: bool) -> int:
    """Return how much of a message says what it is and for which channel or what kind of channel."""
    if not gently:
        return 0
    if message[0] in {_OPEN, *range(_FIRST_OF_CHANNEL, _LAST_OF_CHANNEL + 1)}:
        return 5
    return 1


def _addressed(chance: Random, message: bytes, channels: list[int]) -> bytes:
    """Return a message of a channel for one that is open here."""
    if not _FIRST_OF_CHANNEL <= message[0] <= _LAST_OF_CHANNEL:
        return message
    if not channels or chance.random() < 0.02:
        return message[:1] + chance.choice(INTEGERS).to_bytes(4, "big") + message[5:]
    return message[:1] + chance.choice(channels[-6:]).to_bytes(4, "big") + message[5:]


class _Raw:
    """A logged-in client that has no idea of channels: it says what it is given and notes what is answered."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection
        self._process: Any = connection.process_packet
        self._heard: dict[int, asyncio.Future[None]] = {}
        self.channels: list[int] = []
        connection._channels = _Nowhere()
        connection.process_packet = self._answered  # type: ignore[method-assign]

    def say(self, messages: list[bytes]) -> None:
        for message in messages:
            if not self.has_ended():
                self._connection.send_packet(message[0], message[1:])
                self._forget_closed(message)

    def has_ended(self) -> bool:
        transport = self._connection._transport
        return transport is None or transport.is_closing()

    def _forget_closed(self, message: bytes) -> None:
        number = int.from_bytes(message[1:5], "big")
        if message[0] == _CLOSE and number in self.channels:
            self.channels.remove(number)

    def _answered(self, pkttype: int, pktid: int, received: Any) -> Any:
        if pkttype == UNIMPLEMENTED:
            waiter = self._heard.pop(int.from_bytes(received.get_remaining_payload()[:4], "big"), None)
            if waiter and not waiter.done():
                waiter.set_result(None)
        elif pkttype == _CONFIRMED:
            self.channels.append(int.from_bytes(received.get_remaining_payload()[4:8], "big"))
        elif pkttype == KEXINIT:
            self._connection.abort()  # a mutation asked for new keys; this client does not know how
        elif pkttype < 80:
            return self._process(pkttype, pktid, received)
        return True

    async def is_heard(self) -> bool:
        """Wait until the gateway has taken what was said before; say whether the connection survived."""
        if self.has_ended():
            return False
        answered = asyncio.get_running_loop().create_future()
        self._connection.send_packet(BARRIER)
        self._heard[self._connection._send_seq - 1] = answered
        ended = asyncio.ensure_future(self._connection.wait_closed())
        try:
            await asyncio.wait({answered, ended}, timeout=HANG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return answered.done()
        finally:
            ended.cancel()

    async def has_channels(self) -> None:
        """Give the gateway a moment to confirm channels; there may be too many open for that."""
        for _ in range(10):
            if len(self.channels) >= CHANNELS_MIN or not await self.is_heard():
                return

    async def leave(self) -> None:
        self._connection.abort()
        await self._connection.wait_closed()


class _Nowhere(dict[int, Any]):
    """Takes the messages of every channel there could be."""

    def __missing__(self, _number: int) -> "_Nowhere":
        return self

    def log_received_packet(self, *_args: object) -> None:
        """Nothing is logged."""

    def process_packet(self, *_args: object) -> bool:
        return True
