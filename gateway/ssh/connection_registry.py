"""The register of live connections and their channels: who is in, with which key, doing what; and how to end it.

`recheck` holds every one of them against the users, keys and policy of this moment (invariant 8). When to call it is
for others to know; what is allowed is said by the decision function it is given.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gateway.audit import events
from gateway.gate import Decide, Recorder
from gateway.model import Actor, EnvironmentRef, Fingerprint, PublicKey, User, UserName
from gateway.ssh.services import Directory, EnvironmentAccess, Offload
from gateway.ssh.transport.relay import Traffic
from policies.requests import Certificate, Decision, LoginRequest, Request, Subject


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who logged in, proven by a signature: never taken from an offered key alone."""

    ref: EnvironmentRef
    user: User
    key: PublicKey
    address: str
    certificate: Certificate | None = None
    """Set where a CA of the policy vouched for the key, and the store need not know it."""

    @property
    def subject(self) -> Subject:
        key = self.key
        return Subject(self.user.name, self.address, key.algorithm, key.bits, key.fingerprint, self.certificate)

    @property
    def actor(self) -> Actor:
        return Actor("user", self.user.name, self.key.fingerprint, self.address)


@dataclass(slots=True)
class LiveChannel:
    """A session, forward or listener under way; `end` closes it and shows the reason."""

    request: Request
    end: Callable[[str], None]
    traffic: Traffic = field(default_factory=Traffic)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    detail: str = ""
    uses_environment: bool = True
    """Whether what it moves keeps an environment from being idle; what the gateway answers itself does not."""


Activity = tuple[tuple[LiveChannel, ...], int, int]


@dataclass(slots=True)
class LiveConnection:
    """A logged-in connection; `end` closes it and shows the reason, `notify` writes a line to its terminals."""

    identity: ClientIdentity
    end: Callable[[str], None]
    notify: Callable[[str], None]
    id: str = field(default_factory=lambda: secrets.token_hex(4))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    channels: list[LiveChannel] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    """Of channels that are closed already."""
    idle_bytes: int = 0
    """Of these, what used no environment."""

    @property
    def sent_bytes(self) -> int:
        return self.traffic.sent_bytes + sum(channel.traffic.sent_bytes for channel in self.channels)

    @property
    def received_bytes(self) -> int:
        return self.traffic.received_bytes + sum(channel.traffic.received_bytes for channel in self.channels)

    @property
    def used_bytes(self) -> int:
        """Bytes both ways that were a use of the environment."""
        idle = sum(channel.traffic.total for channel in self.channels if not channel.uses_environment)
        return self.sent_bytes + self.received_bytes - idle - self.idle_bytes

    def closed(self, channel: LiveChannel) -> None:
        """Keep what a channel moved that is closed now."""
        self.channels.remove(channel)
        self.traffic.sent_bytes += channel.traffic.sent_bytes
        self.traffic.received_bytes += channel.traffic.received_bytes
        self.idle_bytes += 0 if channel.uses_environment else channel.traffic.total

    def activity(self) -> "Activity":
        """Return what can differ between two reports."""
        return tuple(self.channels), self.sent_bytes, self.received_bytes

    def report(self) -> "ConnectionReport":
        """Describe the connection as it is now."""
        return ConnectionReport(
            id=self.id,
            user=self.identity.user.name,
            fingerprint=self.identity.key.fingerprint,
            address=self.identity.address,
            environment=str(self.identity.ref),
            since=self.since,
            channels=tuple(f"{channel.request.action} {channel.detail}".strip() for channel in self.channels),
            sent_bytes=self.sent_bytes,
            received_bytes=self.received_bytes,
            used_bytes=self.used_bytes,
        )


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """A live connection as `devgw sessions list` shows it. Bytes are those sent to and received from the user."""

    id: str
    user: str
    fingerprint: str
    address: str
    environment: str
    since: datetime
    channels: tuple[str, ...]
    sent_bytes: int
    received_bytes: int
    used_bytes: int = 0
    """Of these, what used the environment."""


class ConnectionRegistry:
    """All live connections of this process. Its methods are called on the event loop."""

    def __init__(
        self, directory: Directory, environments: EnvironmentAccess, offload: Offload, recorder: Recorder
    ) -> None:
        self._directory = directory
        self._environments = environments
        self._offload = offload
        self._recorder = recorder
        self._live: dict[str, LiveConnection] = {}
        self._admitting: Counter[UserName] = Counter()
        self._opening: Counter[UserName] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, connection: LiveConnection) -> None:
        self._live[connection.id] = connection
        self._empty.clear()

    def remove(self, connection: LiveConnection) -> None:
        self._live.pop(connection.id, None)
        if not self._live:
            self._empty.set()

    async def wait_empty(self, timeout_seconds: float) -> bool:
        """Wait until nobody is connected; say whether that was so in time."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True

    def __len__(self) -> int:
        return len(self._live)

    def count(self, user: UserName) -> int:
        """Return how many connections a user has, with those that are being admitted."""
        return sum(live.identity.user.name == user for live in self._live.values()) + self._admitting[user]

    def channels(self, user: UserName) -> int:
        """Return how many channels the connections of a user have."""
        return sum(len(live.channels) for live in self._live.values() if live.identity.user.name == user)

    def held(self, user: UserName) -> int:
        """Return about how many descriptors a user has: one for each connection, each channel and each that opens."""
        return self.count(user) + self.channels(user) + self._opening[user]

    @contextmanager
    def opening(self, user: UserName) -> Iterator[None]:
        """Count a forward whose far end does not answer yet: it has a socket already."""
        self._opening[user] += 1
        try:
            yield
        finally:
            _take(self._opening, user)

    def admitting(self, user: UserName) -> Callable[[], None]:
        """Count a connection that is about to be added; return what counts it no longer, to be called once."""
        self._admitting[user] += 1
        return lambda: _take(self._admitting, user)

    def subjects(self) -> list[Subject]:
        """Return who is connected, once for each connection."""
        return [live.identity.subject for live in self._live.values()]

    def activity(self) -> dict[str, Activity]:
        """Return of each connection what can differ between two reports: a sixth of the work of a report."""
        return {live.id: live.activity() for live in self._live.values()}

    def report(self, ids: Iterable[str] | None = None) -> list[ConnectionReport]:
        """Describe connections that are there, oldest first, or these ones."""
        return [self._live[wanted].report() for wanted in (self._live if ids is None else ids)]

    def notify(self, ref: EnvironmentRef, line: str) -> None:
        """Write a line to every open terminal of an environment."""
        for live in self._live.values():
            if live.identity.ref == ref:
                live.notify(line)

    def close(self, ids: Iterable[str], reason: str) -> list[str]:
        """End connections, with the reason on their users' screens; return the ids that were there."""
        found = [self._live[wanted] for wanted in ids if wanted in self._live]
        for live in found:
            live.end(reason)
        return [live.id for live in found]

    async def recheck(self, decide: Decide) -> list[str]:
        """End what is no longer allowed, at once, and touch nothing else; return the ids of connections ended."""
        identities = [live.identity for live in self._live.values()]
        current = await self._offload.quick(self._current_accounts, identities)
        ended = []
        for live in list(self._live.values()):
            now = datetime.now(UTC)
            refusal = _refusal_of(live.identity, current, decide, now)
            if refusal is not None:
                self._revoke(live, "connection", refusal, live.end)
                ended.append(live.id)
                continue
            for channel in list(live.channels):
                decision = decide(replace(channel.request, at=now))
                if not decision.allowed:
                    what = f"{channel.request.action} {channel.detail}".strip()
                    self._revoke(live, what, decision, channel.end)
        return ended

    def _revoke(self, live: LiveConnection, what: str, refusal: Decision, end: Callable[[str], None]) -> None:
        """Write down that something which was allowed is not any more, and end it."""
        who = live.identity
        self._recorder.submit(
            events.session_revoked(who.actor, str(who.ref), live.id, what, refusal.reason, refusal.rule)
        )
        end(f"{refusal.reason} (rule: {refusal.rule})" if refusal.rule != _STORE else refusal.reason)

    def _current_accounts(self, identities: list[ClientIdentity]) -> "_CurrentAccounts":
        """Read once for all: each user, their keys, and which environments there are."""
        current = _CurrentAccounts()
        for name in {identity.user.name for identity in identities}:
            current.users[name], keys = self._directory.account(name)
            current.keys[name] = {key.fingerprint for key in keys}
        current.environments = {ref for ref in {i.ref for i in identities} if self._environments.exists(ref)}
        return current


@dataclass(slots=True)
class _CurrentAccounts:
    users: dict[UserName, User | None] = field(default_factory=dict)
    keys: dict[UserName, set[Fingerprint]] = field(default_factory=dict)
    environments: set[EnvironmentRef] = field(default_factory=set)


_STORE = "store"
"""The rule of what no policy decides: a user or key that the store has no more, or has disabled."""


def _refusal_of(identity: ClientIdentity, current: _CurrentAccounts, decide: Decide, now: datetime) -> Decision | None:
    """Return why a connection may not go on, or None. Someone who logged in a moment ago was decided on just then."""
    name = identity.user.name
    if name not in current.users:
        return None
    user = current.users[name]
    if user is None:
        return Decision(False, _STORE, "the user was deleted")
    if user.disabled:
        return Decision(False, _STORE, "the user is disabled")
    if user.closed_because:
        return Decision(False, _STORE, user.closed_because)
    if identity.certificate is None and identity.key.fingerprint not in current.keys[name]:
        return Decision(False, _STORE, "the key was removed")
    decision = decide(LoginRequest(identity.subject, now))
    return None if decision.allowed else decision


def _take(counter: "Counter[UserName]", user: UserName) -> None:
    counter[user] -= 1
    if not counter[user]:
        del counter[user]
