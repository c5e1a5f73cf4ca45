"""The lines people paste to reach an environment. The names in them come from the settings."""

import socket
from dataclasses import dataclass

from gateway.config import Settings
from gateway.model import EnvironmentRef

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
        return f"ssh {port}-L {self.notebook_port}:localhost:{self.notebook_port} {self.ref}@{self.host}"

    @property
    def notebook_url(self) -> str:
        return f"http://localhost:{self.notebook_port}"


def public_host(settings: Settings) -> str:
    """Return the name users connect to: the one set, or this machine's own."""
    return settings.server.public_host or socket.gethostname()
