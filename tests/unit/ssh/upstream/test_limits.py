"""What an environment's sshd, which may be its user's own, can make the gateway keep: little, and not for long."""

import asyncio
from typing import Any

import asyncssh
import pytest
from asyncssh.channel import SSHChannel
from asyncssh.constants import MSG_CHANNEL_CLOSE, MSG_CHANNEL_EOF

from gateway.ssh.session_channel.environment_side import EnvironmentSession
from gateway.ssh.transport.channels import SIGNALS, EnvironmentChannel
from gateway.ssh.transport.relay import ChannelEnd
from gateway.ssh.transport.request_queue import GLOBAL_REQUESTS_MAX
from gateway.ssh.upstream import pool, unanswered
from gateway.ssh.upstream.pool import UpstreamConnection
from tests.unit.ssh.transport.peers import OpenDoor, until, upstream


class Inside(asyncssh.SSHServerSession[bytes]):
    """A program; it notes the control messages that reach it."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def pty_requested(self, *_terminal: Any) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._seen.append(f"{width}x{height}")

    def signal_received(self, signal: str) -> None:
        self._seen.append(signal)

    def break_received(self, msec: int) -> bool:
        self._seen.append(f"break {msec}")
        return True


class Door(OpenDoor):
    """An sshd that has programs, and ports that take everything."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    def session_requested(self) -> Inside:
        return Inside(self._seen)

    def connection_requested(self, *_where: Any) -> asyncssh.SSHTCPSession[bytes]:
        return asyncssh.SSHTCPSession()


class Nobody:
    """The user's side of a session, without a user."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


async def program(gateway: UpstreamConnection, seconds: float = 20.0) -> EnvironmentChannel:
    far = EnvironmentSession(Nobody())
    await gateway.start_program(
        lambda: far,
        command=b"sleep",
        subsystem=None,
        variables={},
        terminal=("xterm", (80, 24, 0, 0), {}),
        window=1 << 16,
        timeout_seconds=seconds,
    )
    channel = far.start()
    assert channel is not None
    return channel


@pytest.mark.attack("E22", "signals, breaks and window sizes without end, to an environment that does not read")
def test_control_messages_wait_once_each_while_the_environment_does_not_read() -> None:
    """The last size and the last break count, each signal comes once, and unknown names are dropped."""

    async def go() -> None:
        seen: list[str] = []
        async with upstream(lambda: Door(seen)) as (gateway, _sshd):
            channel = await program(gateway)
            gateway.pause_writing()
            before = gateway.sent_bytes
            for width in range(5000):
                channel.change_terminal_size(width, 24)
                channel.send_signal("INT")
                channel.send_signal("x" * 30_000)
                channel.send_signal(f"NAME{width}")
                channel.send_signal("TERM")
                channel.send_break(width)
            assert gateway.sent_bytes == before
            assert len(channel._held) <= len(SIGNALS) + 2
            gateway.resume_writing()
            await until(lambda: len(seen) == 4)
            assert seen == ["4999x24", "INT", "TERM", "break 4999"]
            channel.send_signal("HUP")
            channel.send_signal("x")
            channel.send_signal("USR1")
            await until(lambda: len(seen) == 6)
            assert seen[4:] == ["HUP", "USR1"]

    asyncio.run(go())


def test_an_environment_that_leaves_too_much_unread_is_cut_and_the_journal_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is sent in spite of the congestion: opens, variables, closes."""
    monkeypatch.setattr(pool, "UNREAD_MAX_BYTES", 1 << 20)

    async def go() -> None:
        reasons: list[str] = []
        async with upstream(lambda: Door([]), note_cut=reasons.append) as (gateway, sshd):
            channel = await program(gateway)
            sshd._transport.pause_reading()  # type: ignore[union-attr]  # it is connected
            gateway._transport.set_write_buffer_limits(high=1)  # type: ignore[union-attr]
            sent = 0
            while not gateway.is_ending() and sent < 64 << 20:
                channel._send_request(b"env", bytes(30_000))
                sent += 30_000
                await asyncio.sleep(0)
            assert gateway.is_ending()
            assert reasons == [pool.UNREAD]

    asyncio.run(go())


@pytest.mark.attack("E23", "forwards opened and closed without end through an sshd that never answers CLOSE")
def test_an_sshd_that_never_answers_a_close_holds_a_bounded_number_and_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With data before each close that is never read: of all but a few it is dropped at once."""
    monkeypatch.setattr(unanswered, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(unanswered, "DRAIN_SECONDS", 0.0)
    monkeypatch.setattr(SSHChannel, "_packet_handlers", silent_closes(SSHChannel))

    async def go() -> None:
        reasons: list[str] = []
        async with upstream(lambda: Door([]), note_cut=reasons.append) as (gateway, _sshd):
            refused = 0
            for _ in range(unanswered.UNANSWERED_MAX + 50):
                end = ChannelEnd(lambda _size: None)
                try:
                    channel, _ = await gateway.create_connection(lambda end=end: end, "localhost", 80, "", 0)  # type: ignore[misc]  # a default binds it now
                except asyncssh.ChannelOpenError:
                    refused += 1
                    continue
                channel._send_window = 0
                end.write(bytes(60_000))
                end.close()
            assert refused == 50
            held = sum(channel._send_buf_len for channel in gateway._channels.values())
            assert held == unanswered.DRAINING_MAX * 60_000
            await asyncio.sleep(1.1)
            with pytest.raises(asyncssh.ChannelOpenError):
                await gateway.create_connection(lambda: ChannelEnd(lambda _size: None), "localhost", 80, "", 0)
            assert gateway.is_ending()
            assert reasons == [pool.UNANSWERED]

    asyncio.run(go())


def silent_closes(kind: Any) -> dict[int, Any]:
    """Take CLOSE and EOF without doing anything: the handlers of an sshd that never answers."""
    return {**kind._packet_handlers, MSG_CHANNEL_CLOSE: lambda *_: True, MSG_CHANNEL_EOF: lambda *_: True}


@pytest.mark.attack("E32", "an sshd that never says yes to a session, or never starts its program")
@pytest.mark.parametrize("is_confirmed", [False, True])
def test_a_program_that_never_starts_is_given_up_and_owed(monkeypatch: pytest.MonkeyPatch, is_confirmed: bool) -> None:
    """Each counts as a close that is owed; a yes that comes late is answered by a close, and nothing stays."""

    async def go() -> None:
        may_answer = asyncio.Event()
        seen: list[str] = []

        async def later() -> Inside:
            await may_answer.wait()
            return Inside(seen)

        class Slow(Door):
            def session_requested(self) -> Any:
                return Never(seen) if is_confirmed else later()

        async with upstream(lambda: Slow(seen)) as (gateway, sshd):
            with pytest.raises(asyncssh.ChannelOpenError, match="in time"):
                await program(gateway, seconds=0.3)
            if not is_confirmed:
                assert len(gateway._unanswered) == len(gateway._channels) == 1
            may_answer.set()
            await until(lambda: not gateway._channels and not sshd._channels)
            assert len(gateway._unanswered) == 0

    asyncio.run(go())


class Never(Inside):
    """A program whose start is never confirmed."""

    def exec_requested(self, command: str) -> bool:
        return None  # type: ignore[return-value]  # asyncssh waits for an answer then


def test_closes_that_are_answered_count_for_nothing() -> None:
    """A thousand forwards one after the other leave nothing behind."""

    async def go() -> None:
        async with upstream(lambda: Door([])) as (gateway, _sshd):
            for _ in range(unanswered.UNANSWERED_MAX + 20):
                end = ChannelEnd(lambda _size: None)
                await gateway.create_connection(lambda end=end: end, "localhost", 80, "", 0)  # type: ignore[misc]  # a default binds it now
                end.close()
                await end.closed
            assert len(gateway._unanswered) == 0

    asyncio.run(go())


@pytest.mark.attack("E43", "channels into one environment without end")
def test_the_channels_of_one_environment_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096, over all connections of its user; a channel that has ended makes room for another."""
    monkeypatch.setattr(pool, "CHANNELS_MAX", 20)

    async def go() -> None:
        async with upstream(lambda: Door([])) as (gateway, _sshd):

            async def open_one() -> Any:
                return await gateway.create_connection(lambda: ChannelEnd(lambda _size: None), "localhost", 80)

            channels = [(await open_one())[0] for _ in range(20)]
            with pytest.raises(asyncssh.ChannelOpenError, match="too many channels"):
                await open_one()
            assert len(gateway._channels) == 20
            channels[0].close()
            await until(lambda: len(gateway._channels) < 20)
            await open_one()

    asyncio.run(go())


@pytest.mark.attack("E44", "an environment's sshd that answers no request for a listener")
def test_an_environment_that_answers_no_global_request_is_cut() -> None:
    """Whoever comes, asks for a listener and leaves would otherwise leave one that waits each time."""

    class Mute(OpenDoor):
        async def server_requested(self, listen_host: str, listen_port: int) -> bool:  # type: ignore[override]  # an awaitable is taken too
            await asyncio.Event().wait()
            return False

    async def go() -> None:
        cuts: list[str] = []
        async with upstream(Mute, note_cut=cuts.append) as (gateway, _sshd):
            most = 0
            for port in range(2 * GLOBAL_REQUESTS_MAX):
                gateway.require_answers()
                asked = asyncio.ensure_future(gateway.create_server(lambda *_: None, "localhost", port))
                await asyncio.sleep(0)
                asked.cancel()
                most = max(most, len(gateway._global_request_waiters))
                if gateway.is_ending():
                    break
            assert most <= GLOBAL_REQUESTS_MAX
            assert cuts == [pool.UNANSWERED_REQUESTS]

    asyncio.run(go())
