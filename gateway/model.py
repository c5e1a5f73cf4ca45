"""The nouns every room shares: names, environments, GPUs, actors. Values are frozen; nothing is read or written."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, NewType, Self

from gateway.errors import UsageError
from policies.egress import EgressRule, parse_egress

UserName = NewType("UserName", str)
EnvironmentName = NewType("EnvironmentName", str)
GpuUuid = NewType("GpuUuid", str)
Fingerprint = NewType("Fingerprint", str)
NodeName = NewType("NodeName", str)
"""A machine that an engine runs environments on, by the engine's own name for it."""
NOWHERE = NodeName("")
"""The node of what runs on none, or where none was asked for."""

NAME_PATTERN = "^[a-z][a-z0-9-]{0,30}$"
DEFAULT_ENVIRONMENT = EnvironmentName("main")
RESERVED_USER_NAMES = frozenset({"root", "daemon", "bin", "sys", "nobody", "sshd", "devgw"})
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def parse_user_name(text: str) -> UserName:
    """Return a name that may reach paths, labels and log lines (invariant 9).

    Raises:
        UsageError: `user.bad-name`, for anything that is not `NAME_PATTERN` or is a system account.
    """
    if _NAME.fullmatch(text) is None:
        raise UsageError("user.bad-name", f"{text[:40]!r} is not a user name", f"names match {NAME_PATTERN}")
    if text in RESERVED_USER_NAMES:
        raise UsageError("user.bad-name", f"{text!r} is a system account", "choose the person's own name")
    return UserName(text)


def parse_environment_name(text: str) -> EnvironmentName:
    """Return the name of one of a user's environments.

    Raises:
        UsageError: `environment.bad-name`.
    """
    if _NAME.fullmatch(text) is None:
        raise UsageError(
            "environment.bad-name", f"{text[:40]!r} is not an environment name", f"names match {NAME_PATTERN}"
        )
    return EnvironmentName(text)


@dataclass(frozen=True, slots=True, order=True)
class EnvironmentRef:
    """One environment: whose it is and which of theirs. On the wire `alice` or `alice+proj`."""

    user: UserName
    name: EnvironmentName = DEFAULT_ENVIRONMENT

    @classmethod
    def parse(cls, handle: str) -> "EnvironmentRef":
        """Read `alice` or `alice+proj`. Raises: UsageError."""
        user, plus, name = handle.partition("+")
        return cls(parse_user_name(user), parse_environment_name(name) if plus else DEFAULT_ENVIRONMENT)

    @property
    def hostname(self) -> str:
        """The handle as a DNS label (RFC 1123): `alice+proj` is `alice-proj`. It is shown, never looked up."""
        return str(self).replace("+", "-").strip("-")

    def __str__(self) -> str:
        return self.user if self.name == DEFAULT_ENVIRONMENT else f"{self.user}+{self.name}"


class EnvironmentState(StrEnum):
    """What the gateway knows of an environment; the engine's own word is in `ObservedEnvironment`.

    `UNKNOWN` is shown and never stored: its node does not answer, so it may run or not.
    """

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Mount:
    """A host directory or file seen inside an environment. `source` exists before the engine is asked."""

    source: Path
    target: str
    read_only: bool = False


class Egress(str):
    """Where an environment's own connections may go: `none`, `internet`, or addresses as a policy writes them.

    A list is kept in one spelling: `203.0.113.0/24:443, 198.51.100.20/32`. `rule` is the same for a packet filter.
    """

    __slots__ = ()
    NONE: ClassVar["Egress"]
    INTERNET: ClassVar["Egress"]

    def __new__(cls, text: str) -> Self:
        """Read what an administrator wrote. Raises: UsageError `egress.bad-target`."""
        return super().__new__(cls, str(_egress_rule(text)))

    @property
    def rule(self) -> EgressRule:
        """Return what is open."""
        return _egress_rule(self)


def _egress_rule(text: str) -> EgressRule:
    targets = [part.strip() for part in text.split(",")]
    try:
        return parse_egress(text if text in {"none", "internet"} else targets)
    except ValueError as exc:
        raise UsageError("egress.bad-target", str(exc), "none, internet, or 203.0.113.0/24:443,198.51.100.20") from exc


Egress.NONE = Egress("none")
Egress.INTERNET = Egress("internet")


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one environment."""

    memory_bytes: int
    cpus: float
    pids: int
    shm_bytes: int
    disk_bytes: int = 0
    """Size of its volumes together; 0 where it has none."""


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """All an engine needs to make an environment; equal specs make equal environments."""

    ref: EnvironmentRef
    uid: int
    gid: int
    image: str
    limits: Limits
    mounts: tuple[Mount, ...]
    variables: dict[str, str] = field(default_factory=dict)
    gpus: tuple[GpuUuid, ...] = ()
    egress: Egress = Egress.NONE
    read_only_root: bool = True
    gpu_request: str = ""
    """What an engine that finds GPUs itself is to find, as `--gpu` writes it; empty where `gpus` names them."""
    node: NodeName = NOWHERE
    """The only node it may be on, where one was asked for."""
    avoided_nodes: tuple[NodeName, ...] = ()
    """Nodes it must not be put on."""
    groups: tuple[int, ...] = ()
    """Groups its processes are in beside `gid`: those of shared volumes."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment as the store keeps it. `gpu_request` is what was asked for, `gpus` what it holds now."""

    ref: EnvironmentRef
    state: EnvironmentState
    engine: str
    image: str
    limits: Limits
    gpu_request: str
    gpus: tuple[GpuUuid, ...]
    datasets: tuple[str, ...]
    egress: Egress
    created_at: datetime
    should_run: bool
    detail: str = ""
    last_active_at: datetime | None = None
    purges: bool = False
    """Its deletion, once begun, takes the user's files too."""
    trouble: str = ""
    """What the gateway last failed at in its care for it; empty when all went well."""
    node: NodeName = NOWHERE
    """Where it is, as the engine says; empty where the engine was not asked or has nothing of it."""
    node_request: NodeName = NOWHERE
    """The only node it may be on, where an administrator named one."""
    image_digest: str = ""
    """What it was last started from; `image` may be a channel, which moves."""
    restart_at: datetime | None = None
    """When it is started anew, from its image as that is then; its users are warned before."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who may log in: one stable uid on every engine."""

    name: UserName
    uid: int
    created_at: datetime
    disabled: bool = False
    move: str = ""
    """The id of a move between hosts that is going on."""
    closed_because: str = ""
    """Why nobody gets in under this name, for their screen: they are being moved, or live on another host now."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A user's SSH public key. `line` is the OpenSSH form without options or comment (type and base64)."""

    fingerprint: Fingerprint
    algorithm: str
    bits: int
    line: str
    comment: str = ""
    added_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A whole GPU or a MIG slice that can be leased. `memory_bytes` is 0 where the source does not say."""

    uuid: GpuUuid
    name: str
    memory_bytes: int = 0
    index: str = ""
    mig_profile: str = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user through SSH, an administrator on the host, or the gateway itself."""

    kind: Literal["user", "admin", "gateway"]
    name: str
    key_fingerprint: str = ""
    address: str = ""


GATEWAY = Actor("gateway", "devgw")
"""The gateway, where it acts by itself."""
