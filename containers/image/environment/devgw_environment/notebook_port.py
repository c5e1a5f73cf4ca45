"""The number under which the gateway shows the notebook, held on both loopbacks inside as well."""

import contextlib
import errno
import json
import socket
from collections.abc import Callable

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event

LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class NotebookPort:
    """Listens where the number is free.

    A user's own server then meets `address in use` instead of being masked in silence; where one was quicker, the
    gateway can ask and tells its user.
    """

    def __init__(
        self,
        environment: Environment,
        listen: Callable[[socket.socket, Callable[[socket.socket], None]], None],
        begin: Callable[[socket.socket], None],
    ) -> None:
        """`listen` has connections of a listener given to `begin`."""
        self.number = read_notebook_port(environment)
        self.listen = listen
        self.begin = begin
        self.held: set[str] = set()
        self.taken: set[str] = set()

    def hold(self) -> None:
        """Listen where the port is free."""
        if not self.number:
            return
        for family, host in LOOPBACKS:
            if host not in self.held:
                self.take(family, host, self.number)

    def take(self, family: socket.AddressFamily, host: str, number: int) -> None:
        """Try to listen on one loopback; a host without IPv6 has one only."""
        try:
            listener = socket.create_server((host, number), family=family, backlog=128)
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE and host not in self.taken:
                self.taken.add(host)
                log_event("notebook-port.taken", host=host, port=number)
            return
        self.held.add(host)
        self.taken.discard(host)
        self.listen(listener, self.begin)
        log_event("notebook-port.held", host=host, port=number)

    def is_taken(self) -> bool:
        """Whether somebody else's server has it on a loopback at this moment."""
        self.hold()
        return bool(self.taken)


def read_notebook_port(environment: Environment) -> int:
    """The notebook's port by environment.json; 0 where an older gateway does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = json.loads((environment.config_folder / "environment.json").read_text()).get("notebook_port")
        if isinstance(number, int) and 1023 < number < 65536:
            return number
    return 0
