"""What may be asked of a policy, in the words of RFC 4254 and of the environments. Values only; `decide` answers."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Certificate:
    """An OpenSSH user certificate whose signature was checked already; times are aware.

    `critical_options` names those other than source-address, which stands in `source_addresses`.
    """

    ca_fingerprint: str
    key_id: str
    serial: int
    principals: tuple[str, ...]
    valid_after: datetime
    valid_before: datetime
    source_addresses: tuple[str, ...] = ()
    critical_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks.

    `key_bits` is 0 and the strings are empty where no SSH key is involved (an administrator on the host).
    """

    user: str
    address: str = ""
    key_algorithm: str = ""
    key_bits: int = 0
    key_fingerprint: str = ""
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """May this user, with this key, from this address, now, log in at all?"""

    action: ClassVar[str] = "login"
    subject: Subject
    at: datetime


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """May they open a session channel of this kind (RFC 4254 §6.5)? Other subsystems than sftp are refused earlier."""

    action: ClassVar[str] = "session"
    subject: Subject
    at: datetime
    kind: Literal["shell", "exec", "sftp"]


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """May they open a direct-tcpip channel (RFC 4254 §7.2)? `host` is what the client sent, verbatim."""

    action: ClassVar[str] = "forward"
    subject: Subject
    at: datetime
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ReverseForwardRequest:
    """May they listen inside their environment for `-R` (RFC 4254 §7.1)?"""

    action: ClassVar[str] = "reverse-forward"
    subject: Subject
    at: datetime
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StreamlocalRequest:
    """May they reach, or with `listen` create, a Unix socket inside their environment (direct-streamlocal)?"""

    action: ClassVar[str] = "streamlocal"
    subject: Subject
    at: datetime
    path: str
    listen: bool = False


@dataclass(frozen=True, slots=True)
class AgentForwardingRequest:
    """May they forward their agent into their environment (auth-agent-req@openssh.com)?"""

    action: ClassVar[str] = "agent-forwarding"
    subject: Subject
    at: datetime


@dataclass(frozen=True, slots=True)
class VariableRequest:
    """May they set this environment variable (RFC 4254 §6.4)?"""

    action: ClassVar[str] = "variable"
    subject: Subject
    at: datetime
    name: str


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """May this user have such an environment? `environments` counts those they have already, this one excluded.

    `gpus_held` counts the GPUs leased to their other environments. `gpu_profiles` names MIG
    profiles, empty for whole GPUs. `image` is a channel, a pin or another name, `image_digest` what it leads to now.
    `disk_bytes` is 0 for a disk without a size, None where nothing is asked: then it is what the policy gives.
    """

    action: ClassVar[str] = "create"
    subject: Subject
    at: datetime
    image: str
    memory_bytes: int
    cpus: float
    gpus: int = 0
    gpu_profiles: tuple[str, ...] = ()
    environments: int = 0
    gpus_held: int = 0
    datasets: tuple[str, ...] = ()
    egress: str = "none"
    lifetime_seconds: int | None = None
    image_digest: str = ""
    disk_bytes: int | None = None


PageLevel = Literal["none", "user", "auditor", "admin"]
"""Whose page somebody has; each sees and may do what those before it may."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """May they do this on the gateway's page? `act` and `target` say what, `level` whose page it is on."""

    action: ClassVar[str] = "page"
    subject: Subject
    at: datetime
    level: PageLevel
    act: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True)
class EgressHostRequest:
    """May this user's environments connect to this host outside, by its name? `host` is what was asked for."""

    action: ClassVar[str] = "egress-host"
    subject: Subject
    at: datetime
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class SharedRequest:
    """May this user's environments have this shared volume, and write to it?"""

    action: ClassVar[str] = "shared"
    subject: Subject
    at: datetime
    name: str
    writes: bool = False


Request = (
    LoginRequest
    | SessionRequest
    | ForwardRequest
    | ReverseForwardRequest
    | StreamlocalRequest
    | AgentForwardingRequest
    | VariableRequest
    | CreateRequest
    | EgressHostRequest
    | PageRequest
    | SharedRequest
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer: `rule` says where in the policy it stands, `reason` is a sentence for the person who asked."""

    allowed: bool
    rule: str
    reason: str
