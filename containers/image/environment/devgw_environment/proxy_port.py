"""The loopback port on which tools find the gateway's proxy; it leads to the socket that the gateway put here."""

import errno
import socket
from collections.abc import Callable

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.open_hosts import read_open_hosts

HOST = "127.0.0.1"


class ProxyPort:
    """Listens as long as any host is open."""

    def __init__(
        self,
        environment: Environment,
        listen: Callable[[socket.socket, Callable[[socket.socket], None]], None],
        stop_listening: Callable[[socket.socket], None],
        begin: Callable[[socket.socket], None],
    ) -> None:
        """`listen` has connections of a listener given to `begin`."""
        self.environment = environment
        self.listen = listen
        self.stop_listening = stop_listening
        self.begin = begin
        self.listener: socket.socket | None = None
        self.number = 0
        self.taken = 0

    def hold(self) -> None:
        """Listen where the gateway's word of this moment wants it, and nowhere else."""
        found = read_open_hosts(self.environment)
        number = found.port if found else 0
        if self.listener is not None and number != self.number:
            self.stop_listening(self.listener)
            self.listener = None
            log_event("proxy-port.closed", port=self.number)
        if number and self.listener is None:
            self.take(number)

    def take(self, number: int) -> None:
        """Try to listen; a user's own server may have been quicker."""
        try:
            self.listener = socket.create_server((HOST, number), backlog=128)
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE and self.taken != number:
                self.taken = number
                log_event("proxy-port.taken", port=number)
            return
        self.number, self.taken = number, 0
        self.listen(self.listener, self.begin)
        log_event("proxy-port.held", port=number)
