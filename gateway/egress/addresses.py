"""Which addresses a name may lead to: public ones, in every form in which an address can be carried in another.

Never the gateway's own host, private, shared, loopback, link-local, multicast or metadata addresses.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv4Network, IPv6Network
from ipaddress import IPv6Address as IPv6
from pathlib import Path

from gateway.engines.packet_filter import NOT_PUBLIC, host_addresses

Address = IPv4 | IPv6

_CLOSED_IPV4 = tuple(IPv4Network(network) for network in NOT_PUBLIC)
_GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that IANA has given out for use between networks; loopback, mapped, unique local and link-local lie outside."""
_CLOSED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address behind a relay, withdrawn
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: what DNS64 answers with
_ISATAP = re.compile(rb".{8}[\x00\x02]\x00\x5e\xfe", re.DOTALL)  # RFC 5214: an IPv4 address in the last 32 bits

_IF_INET6 = Path("/proc/net/if_inet6")


def refusal_of(address: Address, own: Iterable[Address] = ()) -> str | None:
    """Say why an address is never connected to, None for a public one. `own` are those of the gateway's host."""
    carried = _carried_ipv4(address)
    if carried is not None:
        why = refusal_of(carried, own)
        return f"{why} (as {address})" if why else None
    if address in own:
        return f"{address} is the gateway's own host"
    return None if _is_public(address) else f"{address} is not a public address"


def own_addresses() -> frozenset[Address]:
    """Return every address that this host has now."""
    found: set[Address] = {IPv4(text) for text in host_addresses()}
    lines = _IF_INET6.read_text().splitlines() if _IF_INET6.exists() else []
    return frozenset(found | {IPv6(int(line.split()[0], 16)) for line in lines})


OwnAddresses = Callable[[], frozenset[Address]]


def _carried_ipv4(address: Address) -> IPv4 | None:
    """Return the IPv4 address that packets to this one end up at."""
    if isinstance(address, IPv4):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4(int(address) & 0xFFFFFFFF)
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4):
        return not any(address in network for network in _CLOSED_IPV4)
    if address.scope_id is not None or _ISATAP.match(address.packed):
        return False
    return address in _GLOBAL_IPV6 and not any(address in network for network in _CLOSED_IPV6)
