"""A packet filter that only remembers: for engines before a scripted daemon, whose bridges do not exist."""

from gateway.model import Egress


class RememberedFilter:
    """Passes for `HostPacketFilter` where nothing is to be filtered; what that one does is tried in tests/attacks."""

    def __init__(self) -> None:
        self.confined: dict[str, Egress] = {}
        self.is_made: bool | None = None

    def confine(self, bridge: str, egress: Egress, *, is_made: bool = True) -> None:
        self.is_made = is_made
        self.confined[bridge] = egress

    def release(self, bridge: str) -> None:
        self.confined.pop(bridge, None)
