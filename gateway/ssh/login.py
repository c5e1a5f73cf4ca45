"""Decides who a connection is: public key only, the same answer in the same time to all who are not let in.

The signature itself is checked by asyncssh; what a user may do once in is asked channel by channel.
"""

import asyncio
import hashlib
import logging
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from gateway.audit import events
from gateway.audit.event import new_reference
from gateway.auth.keys import fingerprint_of
from gateway.errors import DevgwError, UsageError
from gateway.model import Actor, EnvironmentRef, PublicKey, User, UserName
from gateway.ssh.connection_registry import ClientIdentity
from gateway.ssh.descriptors import may_serve
from gateway.ssh.runtime import Runtime
from gateway.ssh.transport.log_rate_limiter import LogRateLimiter
from gateway.ssh.user_certificates import read_certificate
from policies.requests import Certificate, LoginRequest

FAIL_DELAY_SECONDS = 0.012
"""The least time after which a refused key is answered; a lookup takes a part of it."""
FINGERPRINTS_MAX = 6
ROOM_SECONDS = 1.0
"""How long a login waits for another connection of its user to end, where they have as many as they may."""
_ROOM_LOOK_SECONDS = 0.05
KEY_USE_GRAIN = timedelta(minutes=1)
"""How exactly the last use of a key is kept; the journal has each login."""
_PLACEHOLDER = UserName("a-user-that-does-not-exist")
_DELAY_SALT = secrets.token_bytes(16)

_log = logging.getLogger(__name__)
_troubles = LogRateLimiter(60)


class Login:
    """The authentication of one connection, from its first request to its end."""

    def __init__(self, runtime: Runtime, address: str, descriptor: int = -1) -> None:
        """`descriptor` is the connection's own."""
        self._runtime = runtime
        self._address = address
        self._descriptor = descriptor
        self._name = ""
        self._offered: list[str] = []
        self._certified: tuple[bytes, Certificate, PublicKey] | None = None
        self._known: tuple[str, str] | None = None
        self._refused_already = False
        self._is_guess = False
        self._has_proved = False
        self._is_in_trouble = False
        self._only_try_left_seconds = 0.0
        self._is_over = False
        self._release: Callable[[], None] | None = None
        self.attempts = 0
        self.identity: ClientIdentity | None = None

    def begin(self, name: str) -> None:
        """Note an attempt; a user name that is banned at this address is turned away.

        Raises:
            asyncssh.DisconnectError: with the time left.
        """
        self._name = name
        self.attempts += 1
        verdict = self._runtime.services.throttle.verdict(self._address, name)
        self._only_try_left_seconds = verdict.ban_left_seconds if verdict.tries == "one" else 0.0
        if verdict.tries == "none":
            self._refused_already = True  # the ban is in the journal, each try in it need not be
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                f"too many failed logins of this user from {self._address}; "
                f"try again in {verdict.ban_left_seconds:.0f} s",
            )

    def misnamed(self, name: str) -> None:
        """Note an attempt under a name that can be nobody's."""
        self._name = name
        self.attempts += 1
        self._is_guess = True

    def unproved(self) -> None:
        """Note that a key was refused, or another method tried: a guess, unless a key is proved yet.

        Raises:
            asyncssh.DisconnectError: at an address that is banned, where this was the only try.
        """
        self._is_guess = True
        if self._only_try_left_seconds:
            self._refused_already = True
            raise asyncssh.DisconnectError(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
                f"too many failed logins from {self._address}; try again in {self._only_try_left_seconds:.0f} s",
            )

    async def is_known(self, name: str, key: asyncssh.SSHKey) -> bool:
        """Say whether a key is one of this user's: the answer to an unsigned offer and the first half of a login."""
        fingerprint = key.get_fingerprint()
        if len(self._offered) < FINGERPRINTS_MAX and fingerprint not in self._offered:
            self._offered.append(fingerprint)
        if self._known == (name, fingerprint):
            return True  # offered a moment ago, now signed for; whether it still is theirs `admit` reads anew
        with self._troubles_told():
            found = await self._look_up(name, fingerprint) is not None
        self._known = (name, fingerprint) if found else None
        return found

    async def is_certified(self, name: str, certificate: SSHOpenSSHCertificate) -> bool:
        """The same for a certificate: of a CA that the policy lists, for a user there is. The rest the gate judges."""
        read = read_certificate(certificate)
        if read is None:
            return False
        said, key = read
        if len(self._offered) < FINGERPRINTS_MAX and key.fingerprint not in self._offered:
            self._offered.append(key.fingerprint)
        self._certified = (certificate.public_data, said, key)
        with self._troubles_told():
            return await self._look_up_certified(name) is not None

    async def admit(self, name: str, key_data: bytes) -> str | None:
        """After a good signature: ask the gate. Return None when they are in, else why not, for their screen."""
        with self._troubles_told():
            identity = await self._identify(name, fingerprint_of(key_data), key_data)
            if identity is None:
                return ""
            self._proved(name)
            refusal = await self._why_not(identity)
        if refusal is not None:
            self._refused_already = True
            self.entered()
            return refusal
        self.identity = identity
        self._note_use(identity)
        return None

    def _proved(self, name: str) -> None:
        """From here on nothing that happens to this connection is a failed login: whoever it is has the key."""
        self._is_guess = False
        self._has_proved = True
        self._runtime.services.throttle.succeeded(self._address, name)

    @contextmanager
    def _troubles_told(self) -> Iterator[None]:
        """Tell the client what the gateway cannot do now, the same to everybody; it is not theirs to answer for.

        Raises:
            asyncssh.DisconnectError: in place of whatever went wrong.
        """
        try:
            yield
        except Exception as error:
            self._refused_already = True
            self._is_in_trouble = True
            reference = new_reference()
            if (held_back := _troubles.tell(type(error).__name__)) is not None:
                what = error.message if isinstance(error, DevgwError) else type(error).__name__
                _log.error("logins cannot be decided (reference %s, %d more before): %s", reference, held_back, what)
            raise asyncssh.DisconnectError(
                asyncssh.DISC_BY_APPLICATION,
                f"the gateway cannot decide logins at the moment; try again (reference {reference})",
            ) from error

    async def _identify(self, name: str, fingerprint: str, key_data: bytes) -> ClientIdentity | None:
        if self._certified and self._certified[0] == key_data:
            return await self._look_up_certified(name)
        found = await self._look_up(name, fingerprint)
        return ClientIdentity(*found, self._address) if found else None

    async def _why_not(self, identity: ClientIdentity) -> str | None:
        services = self._runtime.services
        if identity.user.disabled:
            return self._refuse(identity.actor, "the user is disabled")
        if identity.user.closed_because:
            return self._refuse(identity.actor, identity.user.closed_because)
        limit = connections_max(self._runtime, identity.user.name)
        if not await self._has_room(identity.user.name, limit):
            return self._refuse(identity.actor, f"you have too many connections open ({limit} are permitted)")
        if not may_serve(self._descriptor, self._runtime.registry.held(identity.user.name)):
            return self._refuse(identity.actor, "the gateway has no room for more connections of yours")
        try:
            request = LoginRequest(identity.subject, datetime.now(UTC))
            answer = await services.gate.ask_async(request, identity.actor, str(identity.ref))
        except DevgwError as error:
            _log.error("a login could not be decided: %s", error.message)
            return error.message
        return None if answer.allowed else str(answer)

    async def _has_room(self, user: UserName, limit: int) -> bool:
        """Say whether a user may have one connection more; the end of their last one may take a moment to arrive."""
        deadline = asyncio.get_running_loop().time() + ROOM_SECONDS
        while await self._count_connections(user) >= limit:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_ROOM_LOOK_SECONDS)
        if self._is_over:
            return False
        self._release = self._runtime.registry.admitting(user)
        return True

    def entered(self) -> None:
        """The connection is in the registry, or comes to nothing: it is counted there, or no longer."""
        release, self._release = self._release, None
        if release:
            release()

    async def _count_connections(self, user: UserName) -> int:
        """Count them in this process and, as of half a second ago, in the others."""
        elsewhere = self._runtime.services.connections_elsewhere
        others = await self._runtime.offload.quick(elsewhere, user) if elsewhere else 0
        return self._runtime.registry.count(user) + others

    def closed(self) -> None:
        """The connection is over: one in which no key was proved counts as one failure, however many it offered."""
        self._is_over = True
        self.entered()
        if self.identity is not None or not self.attempts:
            return
        if self._is_guess and not self._has_proved and not self._is_in_trouble:
            self._count_failure()
        if not self._refused_already:
            self._refuse(Actor("user", self._name[:64], "", self._address), "no key of this user was offered")

    def _count_failure(self) -> None:
        throttle = self._runtime.services.throttle
        if not throttle.failed(self._address, self._name):
            return
        for ban in throttle.bans(self._address, self._name):  # just begun: in a ban nothing counts
            event = events.source_banned(ban.address, ban.user, ban.left_seconds, ban.bans, ban.reason)
            self._runtime.services.recorder.submit(event)

    async def delay(self, started: float) -> None:
        """Wait until a time that depends on the name alone, so that it says nothing about the name."""
        digest = hashlib.blake2b(self._name.encode("utf-8", "replace"), key=_DELAY_SALT, digest_size=2).digest()
        target = FAIL_DELAY_SECONDS * (1 + int.from_bytes(digest, "big") / 65536)
        elapsed = asyncio.get_running_loop().time() - started
        while target < elapsed:
            target *= 2
        await asyncio.sleep(target - elapsed)

    async def _look_up(self, name: str, fingerprint: str) -> tuple[EnvironmentRef, User, PublicKey] | None:
        try:
            ref = EnvironmentRef.parse(name)
        except UsageError:
            ref = None
        wanted = ref.user if ref else _PLACEHOLDER  # the same work for a name that cannot be one
        user, keys = await self._runtime.offload.quick(self._runtime.services.directory.account, wanted)
        key = next((key for key in keys if key.fingerprint == fingerprint), None)
        return (ref, user, key) if ref and user and key else None

    async def _look_up_certified(self, name: str) -> ClientIdentity | None:
        """Return whom the certificate at hand would be, after the same work for a name that is nobody's."""
        assert self._certified is not None  # noqa: S101 - set by `is_certified`
        _data, said, key = self._certified
        try:
            ref = EnvironmentRef.parse(name)
        except UsageError:
            ref = None
        wanted = ref.user if ref else _PLACEHOLDER
        user, _keys = await self._runtime.offload.quick(self._runtime.services.directory.account, wanted)
        trusted = self._runtime.services.access.trusts(said.ca_fingerprint)
        return ClientIdentity(ref, user, key, self._address, said) if ref and user and trusted else None

    def _refuse(self, actor: Actor, reason: str) -> str:
        event = events.login_refused(actor, self._name, " ".join(self._offered), reason)
        self._runtime.services.recorder.submit(event)
        return f"{reason} (reference {event.reference})"

    def _note_use(self, identity: ClientIdentity) -> None:
        """Note when the key was used, to the minute: a write to the store costs more than the login."""
        if identity.certificate is not None:
            return  # a key that the store does not know
        last = identity.key.last_used_at
        if last is not None and datetime.now(UTC) - last < KEY_USE_GRAIN:
            return
        directory = self._runtime.services.directory
        used = self._runtime.offload.quick(directory.key_used, identity.user.name, identity.key.fingerprint)
        asyncio.ensure_future(used).add_done_callback(_log_failure)


def connections_max(runtime: Runtime, user: UserName) -> int:
    """Return how many connections a user may have: the server's limit, or the policy's where it is smaller."""
    return min(
        runtime.settings.max_connections_per_user, runtime.services.access.allowance(user).connections or sys.maxsize
    )


def _log_failure(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and task.exception():
        _log.warning("the use of a key could not be noted: %s", task.exception())
