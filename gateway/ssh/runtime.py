"""What all connections of one server share. Made once by `server`; holds no behaviour of its own."""

from dataclasses import dataclass

from gateway.config import SshSettings
from gateway.ssh.services import Offload, Services
from gateway.ssh.sessions import SessionRegistry
from gateway.ssh.upstream.pool import UpstreamPool
from gateway.ssh.upstream.wake import Waker


@dataclass(frozen=True, slots=True)
class Runtime:
    """Settings, services and the server's own shared parts."""

    settings: SshSettings
    services: Services
    offload: Offload
    waker: Waker
    upstreams: UpstreamPool
    registry: SessionRegistry
