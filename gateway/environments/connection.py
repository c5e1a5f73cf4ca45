"""The lines people paste to reach an environment. The names in them come from the settings."""

import socket
from dataclasses import dataclass

from gateway.config import Settings
from gateway.environments.ssh_config import local_ports
from gateway.model import DEFAULT_ENVIRONMENT, EnvironmentRef

SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Connection:
    """How an environment is reached from a person's own machine."""

    ref: EnvironmentRef
    host: str
    port: int
    notebook_port: int

    @classmethod
    def of(cls, settings: Settings, ref: EnvironmentRef) -> "Connection":
        """Read host and ports from the settings."""
        return cls(ref, public_host(settings), settings.server.port, settings.server.notebook_port)

    @property
    def ssh_line(self) -> str:
        port = "" if self.port == SSH_PORT else f"-p {self.port} "
        return f"ssh {port}-L {self.local_port}:localhost:{self.notebook_port} {self.ref}@{self.host}"

    @property
    def local_port(self) -> int:
        """Return the port on the person's own machine: a named environment has its own, as in `devgw config-ssh`.

        Else the tunnels of two environments would want the same one, and a browser would show the other's notebook.
        """
        return self.notebook_port if self.ref.name == DEFAULT_ENVIRONMENT else local_ports([self.ref])[self.ref]

    @property
    def notebook_url(self) -> str:
        return f"http://localhost:{self.local_port}"


def public_host(settings: Settings) -> str:
    """Return the name users connect to: the one set, or this machine's own."""
    return settings.server.public_host or socket.gethostname()
