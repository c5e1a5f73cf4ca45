"""The side of a session channel (RFC 4254 §6) that faces the user: shell, exec or sftp, bridged byte for byte.

The gate decides whether it may start; see `upstream` for how the environment is reached.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import asyncssh

from gateway.errors import DevgwError
from gateway.ssh.channel_context import ChannelContext
from gateway.ssh.services import Caller, StartOwnProgram
from gateway.ssh.services import Terminal as Screen
from gateway.ssh.session_channel.environment_side import EnvironmentSession
from gateway.ssh.session_channel.own_keys import advice, is_key_file, writes_a_key
from gateway.ssh.session_channel.own_program import OwnProgramRun, find_program
from gateway.ssh.session_channel.record import SessionRecord
from gateway.ssh.transport.channels import SessionChannel
from gateway.ssh.upstream.pool import UpstreamConnection
from policies.requests import SessionRequest, VariableRequest

Kind = Literal["shell", "exec", "sftp"]
Terminal = tuple[str, tuple[int, int, int, int], dict[int, int]]
EXIT_GRACE_SECONDS: Final = 1.0
"""Between the end of a program's output and its exit status."""
BUDGET_WAIT_SECONDS: Final = 5.0
"""After this long it is looked again whether the user's file operations may go on."""
DEFAULT_LOCALE: Final = b"C.UTF-8"
"""Where the client sends none, or one that the policy does not permit."""
ASKED_MAX: Final = 200
"""Characters of a refused command in the journal."""
LOCALES: Final = (b"LC_ALL", b"LC_CTYPE", b"LANG")
SCREEN_MAX: Final = 1000
"""Columns and rows that are drawn at most."""
LOST_TEXT = "the connection to your environment was lost"

_log = logging.getLogger(__name__)


class UserSession(asyncssh.SSHServerSession[bytes]):
    """The side towards the user."""

    def __init__(self, context: ChannelContext) -> None:
        self._context = context
        self._channel: SessionChannel | None = None
        self._far: EnvironmentSession | None = None
        self._program: OwnProgramRun | None = None
        self._terminal: Terminal | None = None
        self._early: list[bytes] = []
        self._early_eof = False
        self._held_back = False
        self._far_is_full = False
        self._budget_timer: asyncio.TimerHandle | None = None
        self._eof_timer: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None
        self._is_sftp = False
        self._has_written = False
        self.exit_code: int | None = None
        self.exit_reason = ""
        self._record = SessionRecord(context, self.end, self.tell)

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
        self._record.observe(lambda observer: observer.resized(width, height))
        if self._far and self._far.channel:
            self._far.channel.change_terminal_size(width, height, pixwidth, pixheight)
        elif self._terminal:
            self._terminal = (self._terminal[0], (width, height, pixwidth, pixheight), self._terminal[2])
        if self._program:
            self._program.resized()

    def signal_received(self, signal: str) -> None:
        if self._program:
            self._program.end()
        if self._far and self._far.channel:
            self._far.channel.send_signal(signal)

    def break_received(self, msec: int) -> bool:
        if not self._far or not self._far.channel:
            return False
        self._far.channel.send_break(msec)
        return True

    # Bytes from the user

    def data_received(self, data: bytes, _datatype: int | None) -> None:
        self._record.received(len(data))
        if self._program:
            self._program.typed(data)
        elif self._far and self._far.channel:
            self._pass_on(self._far, data)
            self._wait_for_budget()
        else:
            self._early.append(data)
            self.pause_reading()

    def _pass_on(self, far: EnvironmentSession, data: bytes) -> None:
        """Hand input to the observer, then to the environment: unless what was seen has ended the session."""
        self._record.observe(lambda observer: observer.typed(data))
        if not self.exit_reason:
            far.write(data)

    def _file_is_written(self, path: str) -> None:
        """End an sftp session that begins with the writing of authorized_keys; among other files it is copied along."""
        is_first, self._has_written = not self._has_written, True
        if not is_key_file(path):
            return
        self._context.refused("authorized-keys", path[:ASKED_MAX])
        if is_first:
            self.end(advice(self._context.identity.user.name))
        else:
            self.tell(advice(self._context.identity.user.name))

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
        if self._program:
            self._program.end()
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
        if self._program:
            self._program.end()
        for timer in (self._eof_timer, self._budget_timer):
            if timer:
                timer.cancel()
        if self._far and self._far.channel:
            self._far.channel.close()
        if self._starting and not self._far and not self._program:
            self._starting.cancel()  # the user has left: nobody waits for the environment any more
        self._record.closed(self.exit_code, self.exit_reason)

    # Bytes to the user, called by the far side and by the connection

    def write(self, data: bytes, datatype: int | None) -> None:
        """Pass output on."""
        if self._channel and not self._channel.is_closing():
            self._record.sent(len(data))
            if datatype is None or self._terminal:
                self._record.observe(lambda observer: observer.shown(data))
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
        """Show a line of the gateway's own on the user's stderr; below a picture where one is drawn."""
        if self._program and self._program.keeps(line):
            return
        if self._channel and not self._channel.is_closing():
            end = "\r\n" if self._terminal else "\n"
            self._channel.write_stderr(f"devgw: {line}{end}".encode())

    def has_terminal(self) -> bool:
        """Say whether a person looks at it."""
        return self._terminal is not None

    def terminal(self) -> Screen | None:
        """Return what the user's terminal is now; one that cannot be drawn on is none."""
        if self._terminal is None or self._terminal[0] in {"", "dumb"}:
            return None
        columns, rows = (max(1, min(size, SCREEN_MAX)) for size in self._terminal[1][:2])
        variables = self._channel.get_environment_bytes() if self._channel else {}
        locale = next((variables[name] for name in LOCALES if variables.get(name)), DEFAULT_LOCALE)
        return Screen(columns, rows, is_unicode=locale.lower().endswith((b"utf-8", b"utf8")))

    def is_held_back(self) -> bool:
        """Say whether the user takes no output just now."""
        return self._held_back

    def is_drawn_on(self) -> bool:
        """Say whether a program of the gateway's own has the user's screen."""
        return self._program is not None and self._program.is_entered

    def is_open(self) -> bool:
        """Say whether there is still a screen to show anything on."""
        return self._channel is not None and not self._channel.is_closing()

    def end(self, reason: str) -> None:
        """End the session from the gateway's side, saying why."""
        self.close_with(reason, reason)
        self._exit(self._context.runtime.settings.exit_status_on_refusal)

    def close_with(self, reason: str, line: str) -> None:
        """Say why it is over, on the user's own screen."""
        self.exit_reason = reason
        if self._program:
            self._program.leave()
        self.tell(line)

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
        self._starting = self._context.spawn(self._run(kind, command))
        return True

    async def _run(self, kind: Kind, command: str | None) -> None:
        request = SessionRequest(self._context.identity.subject, datetime.now(UTC), kind)
        try:
            answer = await self._context.ask(request)
            if not answer.allowed:
                self.end(f"refused: {answer}")
                return
            if command is not None and writes_a_key(command):
                self._context.refused(
                    "authorized-keys", command[:ASKED_MAX].encode("utf-8", "backslashreplace").decode()
                )
                self.end(advice(self._context.identity.user.name))
                return
            program = find_program(self._context.runtime.services.own_programs, command or "")
            if program is not None and command is not None:
                await self._run_own(program, request, command)
                return
            self._context.show_agent_refusal()
            upstream = await self._context.upstream(self.tell)
            if self._channel is None:
                return  # the user left while the environment started
            self._is_sftp = kind == "sftp"
            self._record.begin(kind, self._terminal[1][:2] if self._terminal else None, self._file_is_written)
            self._record.opened(request, (command or "").encode("utf-8", "backslashreplace").decode())
            if self._terminal:
                self._context.spawn(self._context.warn_of_taken_port(self.tell))
            await self._connect(upstream, kind, command)
        except DevgwError as error:
            is_missing = error.code == "environment.not-found"
            self.end(f"{error.message}; ask an administrator for one" if is_missing else error.message)
            if error.hint:
                _log.info("session of %s failed: %s (%s)", self._context.identity.ref, error.message, error.hint)
        except (asyncssh.Error, OSError) as error:
            _log.warning("session of %s failed: %s", self._context.identity.ref, type(error).__name__)
            self.end("your environment did not start the program")

    async def _run_own(self, start: StartOwnProgram, request: SessionRequest, command: str) -> None:
        """Show a program of the gateway's own: the environment is neither woken nor used by it."""
        if self._channel is None:
            return
        self._record.begin("exec", self._terminal[1][:2] if self._terminal else None)
        self._record.opened(request, command, uses_environment=False)
        identity = self._context.identity
        self._program = OwnProgramRun(self)
        self._early.clear()
        self._channel.resume_reading()
        caller = Caller(identity.subject, identity.ref, self._context.connection_id)
        code = await self._program.run(start, caller, command)
        if self.exit_code is None:  # else the gateway has ended it, with its own
            self._exit(self._context.runtime.settings.exit_status_on_refusal if self.exit_reason else code)

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
            timeout_seconds=self._context.runtime.settings.open_timeout_seconds,
        )
        self._far_ready(far)

    def _far_ready(self, far: EnvironmentSession) -> None:
        """The program runs: hand over what came before."""
        channel = far.start()
        if channel is None:
            return
        if self._channel is None:
            channel.close()
            return
        for data in self._early:
            self._pass_on(far, data)
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
        chosen = {name: sent[name] for name, is_allowed in zip(sent, allowed, strict=True) if is_allowed}
        return {b"LANG": DEFAULT_LOCALE} | chosen
