"""Slows down guessing: counts connections that proved no key, by address and by (address, user), and bans for a while.

What is no guess never counts: a limit, a policy's no, the gateway's own trouble, a try during a ban. Keys are not
counted one by one, so an agent with many does not ban its owner. Refusing is the caller's work.
"""

import ast
import ipaddress
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from gateway.auth.proofs import Proofs
from gateway.auth.throttle_store import Memory, NoMemory, Tally

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a ban begins and how long it lasts; each further ban is `growth` times the one before, up to `cap`."""

    failures_per_user: int = 10
    """Of one user name from one address, within the window."""
    failures_per_address: int = 30
    """Of all user names from one address; generous, since a laboratory may share one address."""
    window_seconds: float = 600
    ban_seconds: float = 60
    growth: float = 2
    cap_seconds: float = 3600
    entries_max: int = 50_000
    """Beyond this many remembered sources the oldest are forgotten (invariant 10)."""


@dataclass(frozen=True, slots=True)
class Ban:
    """A source that is shut out."""

    address: str
    user: str | None
    """The one name that is refused from this address; None: every name is."""
    until: float
    left_seconds: float
    bans: int
    """How many this source has had of late, with this one."""
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a source may try to log in now."""

    tries: Literal["all", "one", "none"] = "all"
    """`one`: the first key that is refused ends the connection."""
    ban_left_seconds: float = 0.0


class Throttle:
    """Answers whether a source is banned. Thread-safe; `clock` is wall time so that bans survive a restart."""

    def __init__(
        self,
        clock: Clock,
        limits: Limits | None = None,
        exempt: Iterable[str] = (),
        memory: Memory | None = None,
        proofs: Proofs | None = None,
    ) -> None:
        self._clock = clock
        self._proofs = proofs or Proofs(clock)
        self._limits = limits or Limits()
        self._exempt: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in exempt)
        self._memory = memory or NoMemory()
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._catch_up()

    def ban_left_seconds(self, address: str, user: str | None = None) -> float:
        """Return for how long this address, or this user from it, is banned; 0 when it is not."""
        if self._is_exempt(address):
            return 0.0
        with self._lock:
            self._catch_up()
            return max(self._left(source) for source in _sources(address, user))

    def verdict(self, address: str, user: str | None = None) -> Verdict:
        """Say how a source may try to log in.

        A ban is the guesser's, not that of everybody behind the same address: a user who has proved a key from there
        goes on as ever. While a whole address is banned from which somebody has, other names may show one key.
        """
        left = self.ban_left_seconds(address, user)
        if not left or (user is not None and self._proofs.has(_sources(address, user)[1])):
            return Verdict("all", left)
        is_own = user is not None and any(ban.user is not None for ban in self.bans(address, user))
        return Verdict("one" if self.is_shared(address) and not is_own else "none", left)

    def is_shared(self, address: str) -> bool:
        """Say whether somebody has proved a key from this address of late."""
        return self._proofs.has(_canonical(address))

    def failed(self, address: str, user: str | None = None) -> float:
        """Count a connection that proved no key; return the ban it brings, 0 for none. In a ban nothing counts."""
        if self._is_exempt(address):
            return 0.0
        sources = _sources(address, user)
        with self._changing(sources):
            if any(self._left(source) for source in sources):
                return 0.0
            limits = (self._limits.failures_per_address, self._limits.failures_per_user)
            return max(self._count(source, limit) for source, limit in zip(sources, limits, strict=False))

    def succeeded(self, address: str, user: str) -> None:
        """Note a proof, and forget this user's failures from there; the address's own stay, else one key resets all."""
        sources = _sources(address, user)
        self._proofs.note(*sources)
        with self._lock:
            self._catch_up()
            is_known = sources[-1] in self._tallies
        if is_known:
            with self._changing(sources[-1:]):
                self._tallies.pop(sources[-1], None)

    def bans(self, address: str | None = None, user: str | None = None) -> list[Ban]:
        """Return the bans in force: all, an address's and those of its users, or those that hold for one user."""
        with self._lock:
            self._catch_up()
            wanted = self._known(address) if user is None else _sources(address or "", user)
            return [self._ban(source) for source in wanted if self._left(source)]

    def lift(self, address: str, user: str | None = None) -> bool:
        """Forget all failures at an address, or one user's there, for an administrator; say if there were any."""
        with self._lock:
            self._catch_up()
            known = [source for source in self._known(address) if user is None or source == _sources(address, user)[1]]
        with self._changing(known):
            for source in known:
                self._tallies.pop(source, None)
        return bool(known)

    def _known(self, address: str | None) -> list[str]:
        wanted = None if address is None else _canonical(address)
        return [source for source in self._tallies if wanted is None or source.split(" ", 1)[0] == wanted]

    def _ban(self, source: str) -> Ban:
        tally = self._tallies[source]
        address, _, name = source.partition(" ")
        limit = self._limits.failures_per_user if name else self._limits.failures_per_address
        under = f" as {name}" if name else ""
        reason = f"{limit} connections{under} proved no key within {self._limits.window_seconds:.0f} s"
        user = ast.literal_eval(name) if name else None
        return Ban(address, user, tally.banned_until, self._left(source), tally.bans, reason)

    @contextmanager
    def _changing(self, sources: Iterable[str]) -> Iterator[None]:
        """Change what is remembered of some sources, one process after the other, each knowing what the last did."""
        with self._lock, self._memory.writing():
            self._catch_up()
            yield
            self._memory.write([(source, self._tallies.get(source)) for source in sources], self._tallies)

    def _catch_up(self) -> None:
        is_whole, news = self._memory.news()
        if is_whole:
            self._tallies.clear()
        for source, tally in news:
            self._tallies.pop(source, None)
            if tally:
                self._tallies[source] = tally
        if news:
            self._forget_oldest(self._clock())

    def _is_exempt(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(_canonical(address))
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self._exempt)

    def _left(self, source: str) -> float:
        tally = self._tallies.get(source)
        return max(0.0, tally.banned_until - self._clock()) if tally else 0.0

    def _count(self, source: str, limit: int) -> float:
        now = self._clock()
        tally = self._tallies.pop(source, None) or Tally(since=now)
        self._tallies[source] = tally  # to the end: insertion order is the order of last failure
        self._forget_oldest(now)
        if now - tally.since > self._limits.window_seconds:
            tally.failures, tally.since = 0, now
        tally.failures += 1
        if tally.failures < limit:
            return 0.0
        seconds = min(self._limits.ban_seconds * self._limits.growth**tally.bans, self._limits.cap_seconds)
        tally.bans, tally.failures, tally.banned_until = tally.bans + 1, 0, now + seconds
        return seconds

    def _forget_oldest(self, now: float) -> None:
        keep = self._limits.window_seconds + self._limits.cap_seconds
        while self._tallies:
            source, oldest = next(iter(self._tallies.items()))
            stale = now - max(oldest.since, oldest.banned_until) > keep
            if not stale and len(self._tallies) <= self._limits.entries_max:
                return
            del self._tallies[source]


def _canonical(address: str) -> str:
    """Give an IPv4 address one spelling, also where it arrives mapped into IPv6; drop the zone."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _sources(address: str, user: str | None) -> tuple[str, ...]:
    spelled = _canonical(address)
    return (spelled,) if user is None else (spelled, f"{spelled} {user[:64]!a}")
