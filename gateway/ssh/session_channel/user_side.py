"""A session channel (RFC 4254 §6): shell, exec or sftp, bridged byte for byte to the environment's sshd.

Whether it may start is asked of the gate; how the environment is reached is `upstream`'s.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import asyncssh

from gateway.audit.event import Event
from gateway.errors import DevgwError, JournalError
from gateway.ssh.channel_context import ChannelContext
from gateway.ssh.connection_registry import LiveChannel
from gateway.ssh.observers.observer import Observer, TerminalRecorder
from gateway.ssh.observers.sftp_journal import SftpJournal
from gateway.ssh.transport.channels import EnvironmentChannel, SessionChannel
from gateway.ssh.upstream.pool import UpstreamConnection
from policies.requests import SessionRequest, VariableRequest

Kind = Literal["shell", "exec", "sftp"]
Terminal = tuple[str, tuple[int, int, int, int], dict[int, int]]
EXIT_GRACE_SECONDS: Final = 1.0
"""Between the end of a program's output and its exit status."""
BUDGET_WAIT_SECONDS: Final = 5.0
"""After this long it is looked again whether the user's file operations may go on."""
LOST_TEXT = "the connection to your environment was lost"

_log = logging.getLogger(__name__)


class UserSession(asyncssh.SSHServerSession[bytes]):
    """The side towards the user."""

    def __init__(self, context: ChannelContext) -> None:
        self._context = context
        self._channel: SessionChannel | None = None
        self._far: EnvironmentSession | None = None
        self._live: LiveChannel | None = None
        self._terminal: Terminal | None = None
        self._early: list[bytes] = []
        self._early_eof = False
        self._held_back = False
        self._far_is_full = False
        self._budget_timer: asyncio.TimerHandle | None = None
        self._eof_timer: asyncio.TimerHandle | None = None
        self._observer: Observer | None = None
        self._is_sftp = False
        self.exit_code: int | None = None
        self.exit_reason = ""

    # What the user's client asks

    def connection_made(self, chan: "asyncssh.SSHServerChannel[bytes]") -> None:
        assert isinstance(chan, SessionChannel)  # noqa: S101 - GuardedServerConnection makes no other
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        if "\0" in term_type:
            return False  # sshd would end the connection over it, and that one is shared
        self._terminal = (term_type, term_size, dict(term_modes))
        return True

    def shell_requested(self) -> bool:
        return self._start("shell", None)

    def exec_requested(self, command: str) -> bool:
        return self._start("exec", command)

    def subsystem_requested(self, subsystem: str) -> bool:
        if subsystem != "sftp":
            self._context.refused("subsystem", subsystem)
            return False
        return self._start("sftp", None)

    def x11_refused(self) -> None:
        """Note an x11-req, which the channel refuses."""
        self._context.refused("x11", "")

    async def agent_requested(self) -> bool:
        """Answer auth-agent-req@openssh.com."""
        return await self._context.allow_agent()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._observe(lambda observer: observer.resized(width, height))
        if self._far and self._far.channel:
            self._far.channel.change_terminal_size(width, height, pixwidth, pixheight)
        elif self._terminal:
            self._terminal = (self._terminal[0], (width, height, pixwidth, pixheight), self._terminal[2])

    def signal_received(self, signal: str) -> None:
        if self._far and self._far.channel:
            self._far.channel.send_signal(signal)

    def break_received(self, msec: int) -> bool:
        if not self._far or not self._far.channel:
            return False
        self._far.channel.send_break(msec)
        return True

    # Bytes from the user

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        if self._live:
            self._live.traffic.received_bytes += len(data)
        if self._far and self._far.channel:
            self._observe(lambda observer: observer.typed(data))
            self._far.write(data)
            self._wait_for_budget()
        else:
            self._early.append(data)
            self.pause_reading()

    def _wait_for_budget(self) -> None:
        """Read no further while file operations fill the journal faster than this user may."""
        self._budget_timer = None
        left = self._context.runtime.services.budget.hold_seconds(self._context.identity.actor) if self._is_sftp else 0
        if self._channel and left > 0:
            self._channel.pause_reading()
            loop = asyncio.get_running_loop()
            self._budget_timer = loop.call_later(min(left, BUDGET_WAIT_SECONDS), self._budget_is_over)

    def _budget_is_over(self) -> None:
        self._wait_for_budget()
        if self._budget_timer is None and not self._far_is_full and self._channel:
            self._channel.resume_reading()

    def eof_received(self) -> bool:
        if self._far and self._far.channel:
            self._far.channel.write_eof()
        else:
            self._early_eof = True
        return True

    def pause_writing(self) -> None:
        self._held_back = True
        if self._far and self._far.channel:
            self._far.channel.pause_reading()

    def resume_writing(self) -> None:
        self._held_back = False
        if self._far and self._far.channel:
            self._far.channel.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._channel = None
        for timer in (self._eof_timer, self._budget_timer):
            if timer:
                timer.cancel()
        if self._far and self._far.channel:
            self._far.channel.close()
        self._note_closed()

    # Bytes to the user, called by the far side and by the connection

    def write(self, data: bytes, datatype: int | None) -> None:
        """Pass output on."""
        if self._channel and not self._channel.is_closing():
            if self._live:
                self._live.traffic.sent_bytes += len(data)
            if datatype is None or self._terminal:
                self._observe(lambda observer: observer.shown(data))
            self._channel.write(data, datatype)

    def write_eof(self) -> None:
        """Pass the end of output on, a moment later or with the exit status that mostly follows.

        A client that has ended its input closes at once on it, and would miss the status.
        """
        self._eof_timer = asyncio.get_running_loop().call_later(EXIT_GRACE_SECONDS, self._pass_eof)

    def _pass_eof(self) -> None:
        if self._channel and not self._channel.is_closing():
            self._channel.write_eof()

    def pause_reading(self) -> None:
        self._far_is_full = True
        if self._channel:
            self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._far_is_full = False
        if self._channel and self._budget_timer is None:
            self._channel.resume_reading()

    def tell(self, line: str) -> None:
        """Show a line of the gateway's own on the user's stderr."""
        if self._channel and not self._channel.is_closing():
            end = "\r\n" if self._terminal else "\n"
            self._channel.write_stderr(f"devgw: {line}{end}".encode())

    def has_terminal(self) -> bool:
        """Say whether a person looks at it."""
        return self._terminal is not None

    def is_open(self) -> bool:
        """Say whether there is still a screen to show anything on."""
        return self._channel is not None and not self._channel.is_closing()

    def end(self, reason: str) -> None:
        """End the session from the gateway's side, saying why."""
        self.exit_reason = reason
        self.tell(reason)
        self._exit(self._context.runtime.settings.exit_status_on_refusal)

    def finish(self) -> None:
        """The far side has closed: pass its exit status or signal on and close."""
        far = self._far
        if self._channel is None or far is None:
            return
        if far.exit_signal is not None:
            self.exit_reason = f"signal {far.exit_signal[0][:16]}"
            self._channel.exit_with_signal(*far.exit_signal)
        elif far.exit_status is not None:
            self._exit(far.exit_status)
        else:
            self.end(LOST_TEXT)

    def _exit(self, code: int) -> None:
        self.exit_code = code
        if self._channel:
            self._channel.exit(code)

    # Starting

    def _start(self, kind: Kind, command: str | None) -> bool:
        """Answer yes at once; whatever is wrong is then said on stderr, where the user sees it."""
        self._context.spawn(self._run(kind, command))
        return True

    async def _run(self, kind: Kind, command: str | None) -> None:
        request = SessionRequest(self._context.identity.subject, datetime.now(UTC), kind)
        try:
            answer = await self._context.ask(request)
            if not answer.allowed:
                self.end(f"refused: {answer}")
                return
            upstream = await self._context.upstream(self.tell)
            if self._channel is None:
                return  # the user left while the environment started
            self._begin_observing(kind)
            self._note_opened(request, command)
            await self._connect(upstream, kind, command)
        except DevgwError as error:
            self.end(error.message)
            if error.hint:
                _log.info("session of %s failed: %s (%s)", self._context.identity.ref, error.message, error.hint)
        except (asyncssh.Error, OSError) as error:
            _log.warning("session of %s failed: %s", self._context.identity.ref, type(error).__name__)
            self.end("your environment did not start the program")

    async def _connect(self, upstream: UpstreamConnection, kind: Kind, command: str | None) -> None:
        variables = await self._allowed_variables()
        far = self._far = EnvironmentSession(self)
        await upstream.start_program(
            lambda: far,
            command=command.encode("utf-8", "surrogateescape") if command is not None else None,
            subsystem="sftp" if kind == "sftp" else None,
            variables=variables,
            terminal=self._terminal,
            window=self._context.runtime.settings.channel_window_bytes,
        )
        self._far_ready(far)

    def _far_ready(self, far: "EnvironmentSession") -> None:
        """The program runs: hand over what came before."""
        channel = far.start()
        if channel is None:
            return
        if self._channel is None:
            channel.close()
            return
        for data in self._early:
            self._observe(lambda observer, data=data: observer.typed(data))  # type: ignore[misc]  # a default binds it now
            far.write(data)
        self._early.clear()
        if self._early_eof:
            channel.write_eof()
        if self._held_back:
            channel.pause_reading()
        self.resume_reading()

    async def _allowed_variables(self) -> dict[bytes, bytes]:
        """Ask for the variables the client sent; those refused are dropped silently, as sshd does (AcceptEnv)."""
        sent = dict(self._channel.get_environment_bytes() if self._channel else {})
        subject, now = self._context.identity.subject, datetime.now(UTC)
        requests = [VariableRequest(subject, now, name.decode("utf-8", "replace")[:128]) for name in sent]
        allowed = await self._context.ask_all(requests)
        return {name: sent[name] for name, is_allowed in zip(sent, allowed, strict=True) if is_allowed}

    # The record

    def _begin_observing(self, kind: Kind) -> None:
        """Watch file operations, and terminals where the policy asks for that. Raises: JournalError."""
        identity, services = self._context.identity, self._context.runtime.services
        if kind == "sftp":
            self._is_sftp = True
            self._observer = SftpJournal(identity, services.recorder.submit, services.budget)
        elif self._terminal and services.recordings and services.access.allowance(identity.user.name).record_sessions:
            size = self._terminal[1][:2]
            self._observer = TerminalRecorder(services.recordings, services.recorder, identity, size)
            self.tell("this terminal is recorded, as the policy asks")

    def _observe(self, see: Callable[[Observer], None]) -> None:
        """Let the observer see; a session that must be recorded and cannot be ends."""
        if self._observer is None:
            return
        try:
            see(self._observer)
        except JournalError as error:
            self._observer = None
            self.end(error.message)

    def _note_opened(self, request: SessionRequest, command: str | None) -> None:
        shown = (command or "").encode("utf-8", "backslashreplace").decode()
        self._live = LiveChannel(request, self.end, detail=f"{request.kind} {shown[:200]}".strip())
        self._context.opened(self._live, self._event("session.opened", request.kind, shown))

    def _note_closed(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.ended()
        live, self._live = self._live, None
        if live is None:
            return
        assert isinstance(live.request, SessionRequest)  # noqa: S101 - set in _note_opened
        event = self._event("session.closed", live.request.kind, "")
        event.detail.update(
            exit_code=self.exit_code,
            sent_bytes=live.traffic.sent_bytes,
            received_bytes=live.traffic.received_bytes,
            seconds=round((datetime.now(UTC) - live.since).total_seconds(), 3),
        )
        self._context.closed(live, event)

    def _event(self, code: str, kind: Kind, command: str) -> Event:
        identity = self._context.identity
        detail: dict[str, str | int | float | bool | None] = {"kind": kind, "terminal": self._terminal is not None}
        if command:
            detail["command"] = command[:4096]
        return Event(code, identity.actor, str(identity.ref), reason=self.exit_reason, detail=detail)


class EnvironmentSession(asyncssh.SSHClientSession[bytes]):
    """The side towards the environment."""

    def __init__(self, near: UserSession) -> None:
        self._near = near
        self._opening: EnvironmentChannel | None = None
        self._lost = False
        self.channel: EnvironmentChannel | None = None
        """None until the program runs, and again when the channel is gone."""
        self.exit_status: int | None = None
        self.exit_signal: tuple[str, bool, str, str] | None = None

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        assert isinstance(chan, EnvironmentChannel)  # noqa: S101 - UpstreamConnection makes no other
        self._opening = chan

    def start(self) -> EnvironmentChannel | None:
        """The program runs: take input from now on, unless it has ended already."""
        if not self._lost:
            self.channel = self._opening
        return self.channel

    def write(self, data: bytes) -> None:
        """Pass input on; dropped when the program has closed it."""
        if self.channel and not self.channel.is_closing():
            self.channel.write(data)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._near.write(data, datatype)

    def eof_received(self) -> bool:
        self._near.write_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.exit_signal = (signal, core_dumped, msg, lang)

    def pause_writing(self) -> None:
        self._near.pause_reading()

    def resume_writing(self) -> None:
        self._near.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.channel, self._lost = None, True
        self._near.finish()
