"""What all connections of one server share. Made once by `server`; holds no behaviour of its own."""

from dataclasses import dataclass

from gateway.config import SshSettings
from gateway.ssh.connection_registry import ConnectionRegistry
from gateway.ssh.services import Offload, Services
from gateway.ssh.upstream.dialer import EnvironmentDialer
from gateway.ssh.upstream.pool import UpstreamPool


@dataclass(frozen=True, slots=True)
class Runtime:
    """Settings, services and the server's own shared parts."""

    settings: SshSettings
    services: Services
    offload: Offload
    dialer: EnvironmentDialer
    upstreams: UpstreamPool
    registry: ConnectionRegistry
