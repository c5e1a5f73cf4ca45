"""The SSH listener: one `sshd -i` per connection, with the accepted socket itself as its input and output.

Nothing is copied through Python, and a session lives on when this process dies.
"""

import contextlib
import signal
import socket
import subprocess

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.processes import reap
from devgw_environment.sockets import identify_file, open_listener
from devgw_environment.sshd import sshd_command, sshd_variables
from devgw_environment.wake import SignalWaiter

MOST_CONNECTIONS = 64
CHECK_SECONDS = 1.0


class Listener:
    """Accepts connections on the environment's SSH socket and keeps its file in place."""

    def __init__(self, environment: Environment) -> None:
        self.path = environment.ssh_socket
        self.environment = environment
        self.variables = sshd_variables()
        self.sessions: dict[int, subprocess.Popen[bytes]] = {}
        self.socket: socket.socket | None = None
        self.identity: tuple[int, int] | None = None

    def keep_socket(self) -> socket.socket:
        """The listening socket, made anew when its file was removed or replaced."""
        if self.socket is None or identify_file(self.path) != self.identity:
            if self.socket is not None:
                self.socket.close()
            self.socket = open_listener(self.path)
            self.socket.setblocking(False)
            self.identity = identify_file(self.path)
            log_event("listener.opened", path=self.path)
        return self.socket

    def accept(self, listener: socket.socket) -> None:
        """Take one connection, if one is there, and give it to an sshd of its own."""
        try:
            connection, _address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with connection:
            connection.setblocking(True)
            if len(self.sessions) >= MOST_CONNECTIONS:
                refuse(connection)
                return
            command = sshd_command(self.environment)  # anew each time: which hosts are open may have changed
            session = subprocess.Popen(
                command, env=self.variables, stdin=connection, stdout=connection, start_new_session=True
            )
            self.sessions[session.pid] = session
            log_event("connection.opened", pid=session.pid, open=len(self.sessions))

    def note_ended_sessions(self) -> None:
        """Reap the sshd processes that have ended."""
        for pid, exit_code in reap().items():
            session = self.sessions.pop(pid, None)
            if session is not None:
                session.returncode = exit_code  # reaped by us, so Popen must not wait for it
                log_event("connection.closed", pid=pid, exit_code=exit_code, open=len(self.sessions))


def refuse(connection: socket.socket) -> None:
    """Say why before hanging up; lines ahead of the version string are allowed (RFC 4253 §4.2)."""
    log_event("connection.refused", reason="too many connections", most=MOST_CONNECTIONS)
    with contextlib.suppress(OSError):
        connection.sendall(b"devgw: too many connections to this environment\r\n")


def run_listener(environment: Environment) -> int:
    """Accept connections until SIGTERM; the sessions that are open stay."""
    waiter = SignalWaiter(signal.SIGCHLD)
    listener = Listener(environment)
    while True:
        current = listener.keep_socket()
        _signals, readable = waiter.wait(CHECK_SECONDS, current)
        listener.note_ended_sessions()
        if readable:
            listener.accept(current)
