"""Where an environment's own connections may go: nowhere, public addresses, or addresses named one by one."""

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

from policies.addresses import Network, is_special
from policies.ports import ANY_PORT, Ports, parse_ports

EgressMode = Literal["none", "list", "internet"]


@dataclass(frozen=True, slots=True)
class EgressTarget:
    """One entry of an egress list, as a packet filter takes it."""

    network: Network
    ports: Ports = ANY_PORT

    def covers(self, other: "EgressTarget") -> bool:
        """Say whether every address and port of the other lies in this one."""
        if self.network.version != other.network.version:
            return False
        inside = other.network.subnet_of(self.network)  # type: ignore[arg-type]  # versions are equal here
        return inside and not other.ports - self.ports

    def __str__(self) -> str:
        if self.ports == ANY_PORT:
            return str(self.network)
        shown = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        return f"{shown}:{self.ports}"


@dataclass(frozen=True, slots=True)
class EgressRule:
    """`internet` means public addresses only: the engines keep the host, private ranges and metadata closed."""

    mode: EgressMode = "none"
    targets: tuple[EgressTarget, ...] = ()

    def __or__(self, other: "EgressRule") -> "EgressRule":
        order: tuple[EgressMode, ...] = ("none", "list", "internet")
        targets = self.targets + tuple(target for target in other.targets if target not in self.targets)
        return EgressRule(max(self.mode, other.mode, key=order.index), targets)

    def __str__(self) -> str:
        named = ", ".join(map(str, self.targets))
        return named if self.mode == "list" else ", ".join(filter(None, (self.mode, named)))


def parse_target(text: str) -> EgressTarget:
    """Read `ADDRESS`, `NETWORK/BITS`, each with `:PORTS`; IPv6 with ports stands in brackets. Raises: ValueError."""
    address, ports = text, ANY_PORT
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        ports = parse_ports(rest.removeprefix(":")) if rest else ANY_PORT
    elif text.count(":") == 1:
        address, _, rest = text.partition(":")
        ports = parse_ports(rest)
    try:
        network = ipaddress.ip_network(address)
    except ValueError:
        raise ValueError(f"{text!r} is no address or network; a packet filter knows addresses, not names") from None
    if network.prefixlen == 0:
        raise ValueError(f"{text!r} is everything: write egress = 'internet'")
    if is_special(network):
        raise ValueError(f"{text!r} holds loopback, link-local, unspecified or multicast addresses")
    return EgressTarget(network, ports)


def parse_egress(value: object) -> EgressRule:
    """Read `none`, `internet` or a list of targets. Raises: ValueError."""
    if isinstance(value, EgressRule):
        return value
    if value == "none":
        return EgressRule()
    if value == "internet":
        return EgressRule("internet")
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("write 'none', 'internet' or a list of addresses such as '203.0.113.7:443'")
    return EgressRule("list" if value else "none", tuple(parse_target(entry) for entry in value))


Egress = Annotated[EgressRule, BeforeValidator(parse_egress)]
