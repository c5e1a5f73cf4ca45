"""Settings of the SSH server. Names and defaults are sshd_config's where one exists."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from policies.addresses import Network

KeyExchange = Literal["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org"]
"""First choice first. Without finite-field groups: they let a client burn the server's time (DHEat, CVE-2002-20001)."""
KEY_EXCHANGES: tuple[KeyExchange, ...] = get_args(KeyExchange)

Cipher = Literal[
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
]
CIPHERS: tuple[Cipher, ...] = get_args(Cipher)
Mac = Literal["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"]
ETM_MACS: tuple[Mac, ...] = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
"""They authenticate what is on the wire before it is decrypted (RFC 7366's order); the others do it after."""


class MaxStartups(BaseModel):
    """Random early drop of unauthenticated connections, as sshd defines it: `begin:rate:full`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    begin: int = Field(10, ge=1)
    """Below this many, every connection is taken."""
    rate_percent: int = Field(30, ge=0, le=100)
    """The chance of refusal at `begin`; it grows linearly to 100 at `full`."""
    full: int = Field(100, ge=1)
    """From this many on, every connection is refused."""


class SshSettings(BaseModel):
    """How the one port behaves. Every limit has a safe default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen_address: str = ""
    """Address to listen on; empty means all, IPv4 and IPv6."""
    port: int = Field(2222, ge=0, le=65535)
    """0 lets the kernel choose, for tests."""
    public_host: str = ""
    """Host name printed in ssh lines and client configuration; empty: this machine's name."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that serve the port; limits before login hold in each by itself. Prudent: one for each core in use."""
    reuse_port: bool = False
    """Share the port with other worker processes (SO_REUSEPORT)."""
    notebook_port: int = Field(8888, ge=1, le=65535)
    """The loopback port of an environment that means its notebook; the same as in the policy."""

    kex_algorithms: tuple[KeyExchange, ...] = Field(KEY_EXCHANGES, min_length=1)
    """Key exchanges (KexAlgorithms). The first alone keeps out clients without ML-KEM: OpenSSH before 9.9."""
    ciphers: tuple[Cipher, ...] = Field(CIPHERS, min_length=1)
    """Ciphers (Ciphers). The client's order decides; the gateway's changes to AES-GCM keep within these."""
    macs: tuple[Mac, ...] = Field(ETM_MACS, min_length=1)
    """MACs beside aes-ctr (MACs). Add `hmac-sha2-512` and `hmac-sha2-256` only for clients of libssh2 before 1.11."""

    max_auth_tries: int = Field(6, ge=1)
    """Failed attempts after which a connection is cut; a key that is only offered counts half."""
    login_grace_seconds: float = Field(120, gt=0)
    """Time to log in; 30 is prudent where users have no passphrases to type."""
    max_startups: MaxStartups = MaxStartups()
    """Connections that have not logged in yet, from addresses where no user has proved a key of late."""
    per_source_max_startups: int = Field(20, ge=1)
    """The same for one address, known or not; a burst waits (PerSourceMaxStartups; sshd's default is none)."""
    per_source_max_connections: int = Field(200, ge=1)
    """Connections of one address, logged in or not."""
    per_source_penalty_exempt: tuple[Network, ...] = ()
    """Networks whose failed logins are never banned (PerSourcePenaltyExemptList). Prudent: monitoring hosts alone."""
    proxy_protocol_from: tuple[Network, ...] = ()
    """Balancers' networks, whose connections begin with a PROXY protocol v2 header; nobody else's word is taken."""
    max_connections_per_user: int = Field(32, ge=1)
    """Logged-in connections of one user."""
    max_sessions: int = Field(10, ge=1)
    """Open session channels on one connection (MaxSessions)."""
    max_channels: int = Field(128, ge=1)
    """Open channels of any kind on one connection."""
    max_listeners: int = Field(16, ge=0)
    """Reverse forwards of one connection."""

    client_alive_interval_seconds: float = Field(30, ge=0)
    """Silence after which the client is asked whether it is there; 0 never asks (ClientAliveInterval)."""
    client_alive_count_max: int = Field(4, ge=1)
    """Unanswered questions after which it is given up (ClientAliveCountMax)."""
    rekey_bytes: int = Field(1 << 30, ge=1 << 20)
    """New keys after so many bytes (RekeyLimit)."""
    rekey_seconds: float = Field(3600, gt=0)
    """New keys after so much time."""
    channel_window_bytes: int = Field(2 << 20, ge=1 << 16)
    """Receive window of a channel, as in OpenSSH."""
    connection_window_bytes: int = Field(32 << 20, ge=1 << 20)
    """What all channels of a connection may have in flight together before their windows become small."""
    user_buffer_bytes: int = Field(64 << 20, ge=4 << 20)
    """What the gateway keeps at most for one user, over all connections and channels, in each worker process."""

    upstream_idle_seconds: float = Field(300, gt=0)
    """Time after its last channel at which the connection to an environment is closed."""
    certificate_seconds: int = Field(300, ge=60)
    """Validity of the certificate minted for each connection to an environment."""
    open_timeout_seconds: float = Field(30, gt=0)
    """Time for an environment to open a channel."""
    start_timeout_seconds: float = Field(180, gt=0)
    """Time for a stopped environment to answer."""
    drain_seconds: float = Field(30, ge=0)
    """After SIGTERM, time for open connections to end by themselves."""
    touch_interval_seconds: float = Field(15, gt=0)
    """How often an environment in use is marked so."""
    unknown_asyncssh: bool = False
    """Whether to serve with a version of asyncssh that the gateway's limits were not tried with. Prudent: false."""
    exit_status_on_refusal: int = Field(125, ge=1, le=255)
    """Exit status of a session that the gateway itself refuses or fails."""

    @field_validator("max_startups", mode="before")
    @classmethod
    def _from_sshd_form(cls, value: object) -> object:
        """Accept sshd's own spelling, `10:30:100`."""
        if isinstance(value, str):
            begin, rate, full = value.split(":")
            return {"begin": int(begin), "rate_percent": int(rate), "full": int(full)}
        return value
