"""Networks as policies name them, and the special ones that no policy may open."""

import ipaddress
from functools import lru_cache
from typing import Annotated

from pydantic import BeforeValidator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SPECIAL_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host (RFC 1122)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local: cloud metadata answers here
        "224.0.0.0/4",  # multicast
        "255.255.255.255/32",  # broadcast
        "::/127",  # unspecified and loopback
        "::ffff:0:0/96",  # IPv4 in disguise: to be written as IPv4
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        "fd00:ec2::254/128",  # Amazon's metadata over IPv6
    )
)


def is_special(network: Network) -> bool:
    """Say whether a network touches one that never is a destination."""
    return any(network.version == special.version and network.overlaps(special) for special in SPECIAL_NETWORKS)


def holds(networks: tuple[Network, ...], address: str) -> bool:
    """Say whether an address as the socket gave it lies in one of the networks; what is no address lies in none."""
    plain = _plain_address(address)
    return plain is not None and any(plain in network for network in networks)


@lru_cache(maxsize=4096)
def _plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; one that carries an IPv4 address (a dual-stack socket's) becomes it."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else parsed


def parse_network(value: object) -> Network:
    """Read `192.0.2.0/24` or one address. Raises: ValueError."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("a network is written '192.0.2.0/24'")  # noqa: TRY004  # pydantic collects ValueError only
    try:
        return ipaddress.ip_network(value)
    except ValueError as exc:
        raise ValueError(f"a network is written '192.0.2.0/24': {exc}") from None


NetworkField = Annotated[Network, BeforeValidator(parse_network)]
