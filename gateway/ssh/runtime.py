"""What all connections of one server share. Made once by `server`; holds no behaviour of its own."""

from dataclasses import dataclass, field

from gateway.config import SshSettings
from gateway.model import UserName
from gateway.ssh.connection_registry import ConnectionRegistry
from gateway.ssh.services import Offload, Services
from gateway.ssh.transport.byte_budget import UserBudgets
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
    budgets: UserBudgets
    told_of_agent: set[UserName] = field(default_factory=set)
    """Users who have been told that their agent is not forwarded: once is enough."""
