"""Hosts outside that an environment may connect to by name: `pypi.org`, `*.huggingface.co`, `github.com:443,22`.

A name is judged here; which address it leads to, and whether that is a public one, is the gateway's to find out.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from policies.ports import Ports, parse_ports

HTTPS_PORT = 443
HTTPS = Ports(((HTTPS_PORT, HTTPS_PORT),))
"""What a name without ports means."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253  # RFC 1035 §2.3.4, without the length bytes
_WILDCARD = "*."


@dataclass(frozen=True, slots=True)
class HostTarget:
    """One entry. `name` may begin with `*.`, which stands for every name below, however deep, not for itself."""

    name: str
    ports: Ports = HTTPS

    def fits(self, host: str) -> bool:
        """Say whether a host in its normal form is meant."""
        if self.name.startswith(_WILDCARD):
            return host.endswith(self.name[1:]) and len(host) > len(self.name) - 1
        return host == self.name

    def __str__(self) -> str:
        return self.name if self.ports == HTTPS else f"{self.name}:{str(self.ports).replace(', ', ',')}"


def normal_host(text: str) -> str | None:
    """Return a host name as it is compared: lower case, without the root's dot. None for what is no name of a host.

    An address is none, in no spelling that a resolver would take for one (`127.1`, `0x7f000001`).
    """
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return None if _NUMBER.fullmatch(labels[-1]) else host


def parse_host_target(text: str) -> HostTarget:
    """Read `NAME[:PORTS]`, where a name may begin with `*.`. Raises: ValueError."""
    name, colon, ports = text.partition(":")
    if "//" in text:
        raise ValueError(f"{text!r} is a URL; write its host alone, {_host_of(text)!r}")
    bare = name.removeprefix(_WILDCARD)
    _refuse_foreign_letters(text, name)
    host = normal_host(bare)
    if host is None or bare.endswith("."):
        hint = "addresses are written in egress" if _looks_like_address(text) else "write 'pypi.org' or '*.pypi.org'"
        raise ValueError(f"{text!r} is no host name; {hint}")
    if "." not in host:
        what = "holds every name of a top-level domain" if name != bare else "is no full name, it has no dot"
        raise ValueError(f"{text!r} {what}")
    if colon and not ports:
        raise ValueError(f"{text!r} has a colon and no ports; write '{name}:443'")
    try:
        return HostTarget(name.lower(), _ports(ports) if ports else HTTPS)
    except ValueError as exc:
        raise ValueError(f"{text!r}: {exc}") from None


def _ports(text: str) -> Ports:
    return Ports.of(piece for part in text.split(",") for piece in parse_ports(part.strip()).ranges)


def parse_hosts(value: object) -> tuple[HostTarget, ...]:
    """Read a list of entries. Raises: ValueError."""
    if isinstance(value, tuple) and all(isinstance(entry, HostTarget) for entry in value):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("write a list of host names such as ['pypi.org', '*.huggingface.co', 'github.com:443,22']")
    return tuple(dict.fromkeys(parse_host_target(entry) for entry in value))


def _refuse_foreign_letters(text: str, name: str) -> None:
    """A name is compared as DNS has it. Raises: ValueError, with that spelling where there is one."""
    if name.isascii():
        return
    try:
        spelling = name.encode("idna").decode()
    except UnicodeError:
        spelling = ""
    raise ValueError(f"{text!r} is not ASCII" + (f"; write {spelling!r}" if spelling else ""))


def _looks_like_address(text: str) -> bool:
    last_label = text.partition(":")[0].rpartition(".")[2]
    return "[" in text or "/" in text or text.count(":") > 1 or _NUMBER.fullmatch(last_label) is not None


def _host_of(url: str) -> str:
    return url.partition("//")[2].partition("/")[0]


Hosts = Annotated[tuple[HostTarget, ...], BeforeValidator(parse_hosts)]
