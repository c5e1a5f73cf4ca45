"""From a name to a connection: the gateway's host resolves it once, and what was checked is what is connected to."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.egress.addresses import Address, OwnAddresses, own_addresses, refusal_of

RESOLVE_SECONDS = 10.0
CONNECT_SECONDS = 10.0
"""For one address; the next is tried then."""
ADDRESSES_MAX = 4
LOOKUPS_AT_ONCE = 32
STREAM_BYTES = 64 << 10
"""What is read ahead of each side of a connection."""

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class UnreachableError(Exception):
    """Why there is no connection, in words for the user. `forbidden` says, for the journal, where it led instead."""

    def __init__(self, reason: str, forbidden: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.forbidden = forbidden


class SystemResolver:
    """Asks what the gateway's host asks: its hosts file and its resolvers."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, "resolve")

    async def __call__(self, host: str) -> Sequence[Address]:
        """Return the addresses of a name, the first choice first. Raises: OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        found = await asyncio.wait_for(
            loop.run_in_executor(self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)),
            RESOLVE_SECONDS,
        )
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class Dialer:
    """Connects to hosts by name, and to public addresses alone."""

    def __init__(self, resolve: Resolve | None = None, own: OwnAddresses = own_addresses) -> None:
        self._resolve = resolve or SystemResolver()
        self._own = own

    async def connect(self, host: str, port: int) -> Streams:
        """Return a connection to one of the host's addresses. Raises: UnreachableError."""
        reason = ""
        for address in await self._addresses(host):
            try:
                opening = asyncio.open_connection(str(address), port, limit=STREAM_BYTES)
                return await asyncio.wait_for(opening, CONNECT_SECONDS)
            except TimeoutError:
                reason = reason or f"{host} port {port} does not answer"
            except OSError as exc:
                reason = f"{host} port {port}: {exc.strerror or exc}".lower()
        raise UnreachableError(reason)

    async def _addresses(self, host: str) -> list[Address]:
        """Return the addresses that may be connected to. Raises: UnreachableError, where there is none."""
        try:
            found = await self._resolve(host)
        except TimeoutError:
            raise UnreachableError(f"no resolver of the gateway answers for {host}") from None
        except (OSError, UnicodeError, ValueError) as exc:
            raise UnreachableError(f"the gateway finds no address of {host}") from exc
        own = self._own()
        refusals = [refusal_of(address, own) for address in found]
        checked = [address for address, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not checked:
            why = next(iter(refusals), None) or "it has none"
            raise UnreachableError(f"{host} leads to no public address, and others are never connected to", why)
        return checked[:ADDRESSES_MAX]
