"""The connections to hosts outside that are open now, and how they are held against what is allowed now."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from gateway.egress.tunnel import Tunnel
from gateway.gate import Decide
from gateway.model import EnvironmentRef
from policies.requests import EgressHostRequest, Subject


class OpenTunnels:
    """Knows whose each is."""

    def __init__(self) -> None:
        self._open: dict[Tunnel, EnvironmentRef] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def hold(self, tunnel: Tunnel, ref: EnvironmentRef) -> Iterator[None]:
        """Know a tunnel as long as it is open."""
        self._open[tunnel] = ref
        try:
            yield
        finally:
            del self._open[tunnel]

    def recheck(self, decide: Decide, is_disabled: Callable[[str], bool]) -> None:
        """Cut what would no longer be allowed."""
        now = datetime.now(UTC)
        for tunnel, ref in list(self._open.items()):
            request = EgressHostRequest(Subject(ref.user), now, tunnel.request.host, tunnel.request.port)
            decision = decide(request)
            if not decision.allowed:
                tunnel.cut(f"no longer permitted: {decision.reason} (rule: {decision.rule})")
            elif is_disabled(ref.user):
                tunnel.cut(f"no longer permitted: the user {ref.user} is disabled")

    def cut_all(self, reason: str) -> None:
        """End every one."""
        for tunnel in self._open:
            tunnel.cut(reason)
