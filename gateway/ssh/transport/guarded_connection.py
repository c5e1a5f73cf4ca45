"""The SSH connection to a user: asyncssh's server connection with sshd's limits on login and on channels.

Who they are and what they may do is decided in `client_connection`; this class only counts and times.
"""

from typing import Any, Protocol

import asyncssh
from asyncssh.connection import SSHServerConnection
from asyncssh.constants import MSG_USERAUTH_REQUEST
from asyncssh.packet import SSHPacket
from asyncssh.public_key import SSHOpenSSHCertificate

from gateway.config import SshSettings
from gateway.ssh.transport import algorithms
from gateway.ssh.transport.byte_budget import NO_ROOM
from gateway.ssh.transport.channels import AgentChannel, SessionChannel
from gateway.ssh.transport.guard import ConnectionGuard
from gateway.ssh.transport.key_exchange import KeyExchangeOffer
from gateway.ssh.transport.relay import ChannelEnd

PACKET_BYTES = 32768
BULK_BYTES = 4 << 20
"""Traffic after which a connection is worth a key exchange for the quicker cipher."""
HOST_KEYS_MAX_BYTES = 512
"""Of the public keys that a client may ask proof of at once: eight of ed25519."""
_SIGNATURES = frozenset(name.encode() for name in algorithms.SIGNATURES)


class LoginJudge(Protocol):
    """Who answers for the login; see `gateway.ssh.login.Login`."""

    async def is_certified(self, name: str, certificate: SSHOpenSSHCertificate) -> bool:
        """Say whether a certificate may be one of this user's."""

    async def admit(self, name: str, key_data: bytes) -> str | None:
        """Return None when they are in, else why not."""

    async def delay(self, started: float) -> None:
        """Wait out the time of a refusal."""

    def unproved(self) -> None:
        """Note that a key was refused, or another method tried. Raises: asyncssh.DisconnectError."""

    def misnamed(self, name: str) -> None:
        """Note an attempt under a name that can be nobody's; the connection ends."""


class GuardedServerConnection(ConnectionGuard, SSHServerConnection):
    """One TCP connection of a client."""

    def __init__(
        self, *args: Any, settings: SshSettings, owner: asyncssh.SSHServer, judge: LoginJudge, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._protocol_factory = lambda: owner
        self._settings = settings
        self.channel_window_bytes = settings.channel_window_bytes
        self.connection_window_bytes = settings.connection_window_bytes
        self._judge = judge
        self._auth_method = b""
        self._auth_failures = 0.0
        self._is_offer = False
        self._asked_none = False
        self._quick_ciphers: list[bytes] = []
        self._bulk_left = BULK_BYTES

    async def reload_config(self) -> None:
        """There are no configuration files that could differ by user."""

    # Login (RFC 4252)

    def _noted_request(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """Let no attempt go unrecorded: asyncssh ends the connection over a name that is too long or no text.

        It also maps other alphabets to ASCII (RFC 4013) and begins no login for an empty name: both are nobody's.
        """
        name = SSHPacket(packet.get_remaining_payload()).get_string()
        shown = name.decode("utf-8", "backslashreplace")
        if not name or not name.isascii():
            self._judge.misnamed(shown)
            raise asyncssh.IllegalUserName("there is no such user name")
        try:
            return self._process_userauth_request(pkttype, pktid, packet)
        except asyncssh.IllegalUserName:
            self._judge.misnamed(shown)
            raise

    _packet_handlers = {**ConnectionGuard._packet_handlers, MSG_USERAUTH_REQUEST: _noted_request}  # noqa: RUF012, SLF001 - asyncssh dispatches by this table

    async def _finish_userauth(self, begin_auth: bool, method: bytes, packet: SSHPacket) -> None:
        self._auth_method = method
        self._is_offer = False
        await super()._finish_userauth(begin_auth, method, packet)

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Check a key, its signature's algorithm and the gate; refuse in a time that does not depend on the user."""
        started = self._loop.time()
        self._is_offer = not msg
        self._cert_options = None  # of a certificate that was offered before, when this is a plain key
        good = not msg or SSHPacket(signature).get_string() in _SIGNATURES
        good = await super().validate_public_key(username, key_data, msg, signature) and good
        refusal = await self._judge.admit(username, key_data) if good and msg else None
        if refusal:
            self.send_auth_banner(f"devgw: {refusal}\r\n")
        if good and refusal is None:
            return True
        await self._judge.delay(started)
        if not refusal:
            self._judge.unproved()
        return False

    async def _validate_openssh_certificate(self, username: str, cert: SSHOpenSSHCertificate) -> asyncssh.SSHKey | None:
        """Let the judge look at a certificate; what it does not permit asyncssh refuses later: pty, forwarding."""
        if not await self._judge.is_certified(username, cert):
            return None
        self._cert_options = cert.options
        cert.key.set_touch_required(True)
        return cert.key

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Count failures as sshd does: every refusal but that of the first `none`.

        A key that was only offered counts half: nothing was guessed, and the right one may be an agent's tenth.
        """
        if self._auth_method == b"none" and not self._asked_none:
            self._asked_none = True
        else:
            self._auth_failures += 0.5 if self._is_offer else 1
        if self._auth_method not in {b"none", b"publickey"}:
            self._judge.unproved()
        if self._auth_failures >= self._settings.max_auth_tries:
            raise asyncssh.DisconnectError(asyncssh.DISC_PROTOCOL_ERROR, "Too many authentication failures")
        super().send_userauth_failure(partial_success)

    # Host keys (OpenSSH's PROTOCOL §2.5)

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        """Prove the host keys that are asked for, which are few: each costs a signature."""
        asked = SSHPacket(packet.get_remaining_payload())
        if len(asked.get_remaining_payload()) > HOST_KEYS_MAX_BYTES:
            self._report_global_response(False)
        else:
            super()._process_hostkeys_prove_00_at_openssh_dot_com_global_request(packet)

    # Ciphers (ADR 0010)

    async def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Note what the client offers beyond what is chosen (RFC 4253 §7.1)."""
        offer = KeyExchangeOffer.read(packet.get_full_payload())
        permitted = [name.encode() for name in algorithms.QUICK_CIPHERS if name in self._settings.ciphers]
        quick = permitted if self._copes_with_change() else []
        self._quick_ciphers = [name for name in quick if name in offer.inward and name in offer.outward]
        await super()._process_kexinit(pkttype, pktid, packet)
        # asyncssh ignores a guess only where it missed what was chosen; it is wrong as soon as first choices differ
        self._ignore_first_kex = offer.guess_follows and not offer.has_first_choices(
            self._kex_algs, self._server_host_key_algs or ()
        )

    def _copes_with_change(self) -> bool:
        """Say whether the client is one that is proven to take a key exchange of ours, and another cipher, midway."""
        return self._client_version.startswith(algorithms.QUICK_CIPHER_CLIENTS)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take input; see `_count_bulk`."""
        super().data_received(data, datatype)
        self._count_bulk(len(data))

    def send_data(self, number: int, data: memoryview, packet_bytes: int) -> None:
        """Send data of a channel; see `_count_bulk`."""
        super().send_data(number, data, packet_bytes)
        self._count_bulk(len(data))

    def _count_bulk(self, size: int) -> None:
        """Exchange keys once for AES-GCM when a connection that can use it turns out to move much."""
        self._bulk_left -= size
        if self._bulk_left > 0 or not self._quick_ciphers or not self._auth_complete:
            return
        self._bulk_left = 1 << 62
        if self._enc_alg_sc not in self._quick_ciphers:
            self._loop.call_soon(self._take_quick_ciphers)

    def _take_quick_ciphers(self) -> None:
        if self._kex_complete and not self.is_ending():
            self._enc_algs = self._quick_ciphers
            self._send_kexinit()
            self._kexinit_sent = True

    # Channels (RFC 4254 §5)

    def require_channel(self, permitted: int = 0) -> None:
        """Refuse one channel more than a connection may have, or than are permitted its user (0: no limit of theirs).

        Raises:
            asyncssh.ChannelOpenError: `OPEN_RESOURCE_SHORTAGE`.
        """
        limit = min(self._settings.max_channels, permitted or self._settings.max_channels)
        if len(self._channels) >= limit:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"more than {limit} channels on one connection"
            )
        if not self.budget.has_room():
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, NO_ROOM)

    def require_session(self, permitted: int = 0) -> None:
        """The same for session channels (MaxSessions)."""
        self.require_channel(permitted)
        sessions = sum(isinstance(channel, SessionChannel) for channel in self._channels.values())
        if sessions >= self._settings.max_sessions:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_RESOURCE_SHORTAGE, f"more than {self._settings.max_sessions} sessions on one connection"
            )

    def create_session_channel(self) -> SessionChannel:
        """Make the channel of a session: bytes only, no line editor."""
        self._update_recv_pktlen(PACKET_BYTES)
        return SessionChannel(
            self, self._loop, True, False, False, 0, 0, None, "strict", self.window_for(), PACKET_BYTES
        )

    async def open_agent(self) -> ChannelEnd:
        """Open a channel to the client's agent. Raises: asyncssh.ChannelOpenError."""
        self._update_recv_pktlen(PACKET_BYTES)
        end = ChannelEnd(lambda _size: None, wait=True)
        channel = AgentChannel(self, self._loop, None, "strict", self.window_for(), PACKET_BYTES)
        await channel.open(lambda: end)
        return end

    def listeners(self) -> int:
        """Return how many reverse forwards there are."""
        return len(self._local_listeners)
