"""Sets of TCP ports and the destinations a forward may name. Pure values; `decide` asks them."""

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BeforeValidator

from policies.addresses import is_special

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""The only spellings of the environment's own loopback. Every other one (127.1, 0x7f000001, [::1]) is another host."""

GATEWAY_HOST = "devgw"
"""Means the gateway itself, which answers there without listening on any network."""
METRICS_PORT = 9464
"""OpenTelemetry's number for a Prometheus exporter."""
PAGE_PORT = 80
"""Where a browser looks first."""

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Ports:
    """A set of ports as sorted ranges that do not touch."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> "Ports":
        """Sort and join ranges."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    def __contains__(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __or__(self, other: "Ports") -> "Ports":
        return Ports.of(self.ranges + other.ranges)

    def __sub__(self, other: "Ports") -> "Ports":
        left = list(self.ranges)
        for cut_first, cut_last in other.ranges:
            left = [
                piece
                for first, last in left
                for piece in ((first, min(last, cut_first - 1)), (max(first, cut_last + 1), last))
                if piece[0] <= piece[1]
            ]
        return Ports.of(left)

    def __str__(self) -> str:
        if self == ANY_PORT:
            return "any port"
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges) or "none"


ANY_PORT = Ports(((1, _LAST_PORT),))


Owner = TypeVar("Owner")


class PortMap(Generic[Owner]):
    """Which of several owners of ports comes first for a port; found by bisection, however many there are."""

    def __init__(self, owned: Iterable[tuple[Ports, Owner]]) -> None:
        taken = Ports()
        pieces: list[tuple[int, int, Owner]] = []
        for ports, owner in owned:
            pieces += [(first, last, owner) for first, last in (ports - taken).ranges]
            taken |= ports
        pieces.sort(key=lambda piece: piece[0])
        self._firsts = [first for first, _last, _owner in pieces]
        self._pieces = pieces

    def owner(self, port: int) -> Owner | None:
        """Return the first owner of a port."""
        place = bisect_right(self._firsts, port) - 1
        if place < 0:
            return None
        _first, last, owner = self._pieces[place]
        return owner if port <= last else None


def parse_ports(text: str) -> Ports:
    """Read `8888` or `6000-6010`. Raises: ValueError."""
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is neither a port nor a range such as '6000-6010'")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= _LAST_PORT:
        raise ValueError(f"ports lie between 1 and {_LAST_PORT}, lowest first, not {text!r}")
    return Ports(((first, last),))


_OWN_PORTS = (Ports(((METRICS_PORT, METRICS_PORT),)), Ports(((PAGE_PORT, PAGE_PORT),)))


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where forwards may go: ports of the environment's loopback, its notebook, and hosts named one by one."""

    loopback: Ports = Ports()
    notebook: bool = False
    hosts: tuple[tuple[str, Ports], ...] = ()

    def ports_of(self, host: str, notebook_port: int) -> Ports:
        """Return the ports of one host as the policy spells it; any spelling of loopback takes the notebook's in."""
        if host not in LOOPBACK_HOSTS:
            return self.host_ports(host)
        return self.loopback | Ports(((notebook_port, notebook_port),)) if self.notebook else self.loopback

    def host_ports(self, host: str) -> Ports:
        """Return the ports of one host as the policy spells it; names compare without case."""
        return Ports.of(piece for name, ports in self.hosts if name == host.lower() for piece in ports.ranges)


def parse_destinations(value: object) -> Destinations:
    """Read `none`, `notebook`, `any-loopback` or a list of these, ports, ranges, `HOST:PORTS`. Raises: ValueError."""
    if isinstance(value, Destinations):
        return value
    if value == "none":
        return Destinations()
    if isinstance(value, str | int):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(entry, str | int) for entry in value):
        raise ValueError("write 'none', 'notebook', 'any-loopback' or a list of ports, ranges and HOST:PORTS")
    entries = [_parse_destination(str(entry)) for entry in value]
    return Destinations(
        loopback=Ports.of(piece for entry in entries for piece in entry.loopback.ranges),
        notebook=any(entry.notebook for entry in entries),
        hosts=tuple(host for entry in entries for host in entry.hosts),
    )


def _parse_destination(entry: str) -> Destinations:
    if entry == "notebook":
        return Destinations(notebook=True)
    if entry == "any-loopback":
        return Destinations(loopback=ANY_PORT)
    host, colon, ports = entry.rpartition(":")
    if not colon:
        return Destinations(loopback=parse_ports(entry))
    name, wanted = _parse_host(host), parse_ports(ports)
    if name == GATEWAY_HOST and wanted not in _OWN_PORTS:
        raise ValueError(
            f"{GATEWAY_HOST!r} is the gateway itself: write '{GATEWAY_HOST}:{METRICS_PORT}', its metrics,"
            f" or to deny its page '{GATEWAY_HOST}:{PAGE_PORT}'"
        )
    return Destinations(hosts=((name, wanted),))


def _parse_host(text: str) -> str:
    """Accept a name or an address of another machine. Raises: ValueError for this one, link-local and odd spellings."""
    host = text.lower()
    if host in LOOPBACK_HOSTS or host.endswith("localhost"):
        raise ValueError(f"{text!r} is the environment's own loopback: write the port alone")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _HOST.fullmatch(host) is None or not re.search("[a-z]", host.rpartition(".")[2]) or host.startswith("0x"):
            raise ValueError(f"{text!r} is neither a host name nor an address in its usual form") from None
        return host
    if is_special(ipaddress.ip_network(address)):
        raise ValueError(f"{text!r} is a loopback, link-local, unspecified or multicast address")
    return host


def parse_listen(value: object) -> Destinations:
    """Read what may be listened on in the environment: like destinations, without hosts. Raises: ValueError."""
    destinations = parse_destinations(value)
    if destinations.hosts or destinations.notebook:
        raise ValueError("a reverse forward listens on the loopback: write ports, ranges or 'any-loopback'")
    return destinations


ForwardTo = Annotated[Destinations, BeforeValidator(parse_destinations)]
ListenOn = Annotated[Destinations, BeforeValidator(parse_listen)]
