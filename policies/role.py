"""A role: what its holders may do, under which restrictions, and what is denied to them whatever else they hold.

docs/reference/policy.md lists each option's merge rule; `decide` and `limits` apply them.
"""

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator

from policies.addresses import NetworkField
from policies.document import Table
from policies.egress import Egress, EgressRule
from policies.egress_hosts import Hosts
from policies.hours import TimeZone, WeeklyHours, check_moment
from policies.keys import SAFE_KEY_TYPES, KeyType
from policies.ports import Destinations, ForwardTo, ListenOn
from policies.quantities import Duration, Size
from policies.requests import PageLevel
from policies.shared import Shared
from policies.variables import VariablePattern

SessionKind = Literal["shell", "exec", "sftp"]
StreamLocal = Literal["no", "local", "remote", "yes"]
Moment = Annotated[date, PlainValidator(check_moment)]


def _check_pattern(text: str) -> str:
    if not text or not text.isprintable() or any(character in text for character in " []"):
        raise ValueError(f"{text!r} is no name or pattern; '*' and '?' stand for any characters")
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]


class Restrictions(Table):
    """Conditions on the person's connection. The strictest of all roles held decides, in their hours or not."""

    networks: tuple[NetworkField, ...] = ()
    """Source networks to log in from; empty: from anywhere. Several roles: the address lies in the networks of each."""
    key_types: tuple[KeyType, ...] = SAFE_KEY_TYPES
    """Kinds of keys accepted. Several roles: kinds that all of them accept."""
    required_rsa_size: Annotated[int, Field(ge=3072, le=16_384)] = 3072
    """Smallest RSA key in bits (RequiredRSASize); less than 3072 cannot be asked for. Several roles: the largest."""
    require_hardware_key: bool = False
    """Only keys that live in a security key (sk-). Several roles: one that asks is enough."""
    require_certificate: bool = False
    """Only certificates of a listed CA. Several roles: one that asks is enough."""


class Channels(Table):
    """What may be opened through SSH. Several roles: whatever one of them, in its hours, permits."""

    certificate_authorities: tuple[str, ...] = ()
    """Names of the CAs whose certificates count as keys."""
    sessions: tuple[SessionKind, ...] = ()
    """Kinds of session channels: shell, exec (which scp -O, rsync and VS Code use), sftp (which scp uses)."""
    permit_open: ForwardTo = Destinations()
    """Where `-L` and `-D` may go (PermitOpen): none, notebook, any-loopback, or a list."""
    permit_listen: ListenOn = Destinations()
    """Loopback ports in the environment that `-R` may listen on (PermitListen)."""
    allow_stream_local_forwarding: StreamLocal = "no"
    """Unix sockets in the environment (AllowStreamLocalForwarding): no, local, remote, yes."""
    allow_agent_forwarding: bool = False
    """Whether the user's agent may be reached from their environment. Prudent: no; root on the host could use it."""
    accept_env: tuple[VariablePattern, ...] = ()
    """Environment variables a client may set (AcceptEnv); those that load code are refused whatever stands here."""
    page: PageLevel = "user"
    """The gateway's page (`-L 9000:devgw:80`): none, user, auditor, admin. Several roles: the highest.

    A role that permits no kind of session gives none unless it says so.
    """
    max_connections: Annotated[int, Field(ge=0)] = 0
    """SSH connections at a time; 0: as many as the server lets everybody have. Several roles: the largest."""
    max_sessions: Annotated[int, Field(ge=0)] = 0
    """Open channels in one connection, forwards included (cf. MaxSessions); 0: the server's limit.

    Several roles: the largest.
    """


class Resources(Table):
    """What may be created. Several roles: whatever one of them permits, and the largest number."""

    max_environments: Annotated[int, Field(ge=0)] = 0
    """Environments at a time."""
    images: tuple[Pattern, ...] = ()
    """Images by name, pattern or digest: `devgw/env:cuda` (a channel), `devgw/env:cuda@*` (its pins), `sha256:…`."""
    max_memory: Size = 0
    """Memory of one environment."""
    max_disk: Size | None = None
    """Disk of one environment, its volumes together; set by no role: no limit. Several roles: the largest."""
    max_cpus: Annotated[float, Field(ge=0)] = 0.0
    """Processors of one environment."""
    max_lifetime: Duration | None = None
    """Longest life of an environment; set by no role: no end. Several roles: the longest."""
    max_gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs over all of a user's environments, MIG slices counted as one each."""
    gpu_profiles: tuple[Pattern, ...] = ()
    """MIG profiles that may be asked for, by name or pattern; `full` is a whole GPU, and what an empty list permits."""
    max_lease: Duration | None = None
    """Longest GPU lease; set by no role: as long as the environment lives. Several roles: the longest."""
    datasets: tuple[Pattern, ...] = ()
    """Datasets that may be mounted, read-only."""
    egress: Egress = EgressRule()
    """Where environments may connect to: none, internet (public addresses only) or a list of addresses."""
    egress_hosts: Hosts = ()
    """Hosts outside that they may connect to by name, whatever `egress` says; a name without ports means 443."""
    shared: Shared = ()
    """Volumes shared with others, by name: `{project-x = "rw"}`. Several roles: all of them, `rw` before `ro`."""
    idle_stop: Duration | None = None
    """Stop an environment that nobody used for this long. Several roles: the shortest."""
    record_sessions: bool = False
    """Record what terminals show (asciicast). Several roles: one that asks is enough."""


class Denials(Table):
    """What is refused to every holder of the role, whatever other roles permit. Deny comes before allow."""

    login: bool = False
    networks: tuple[NetworkField, ...] = ()
    key_types: tuple[KeyType, ...] = ()
    sessions: tuple[SessionKind, ...] = ()
    permit_open: ForwardTo = Destinations()
    permit_listen: ListenOn = Destinations()
    allow_stream_local_forwarding: bool = False
    allow_agent_forwarding: bool = False
    accept_env: tuple[Pattern, ...] = ()
    images: tuple[Pattern, ...] = ()
    gpu_profiles: tuple[Pattern, ...] = ()
    datasets: tuple[Pattern, ...] = ()
    egress: bool = False
    egress_hosts: Hosts = ()
    shared: tuple[Pattern, ...] = ()


class Role(Restrictions, Channels, Resources):
    """Everything one role says. An option left out grants nothing and restricts nothing."""

    description: str = ""
    """Who holds it and why, for the access review."""
    from_: Moment | None = Field(default=None, alias="from")
    """The role grants nothing before this moment."""
    until: Moment | None = None
    """The role grants nothing after it; a date counts to its end."""
    hours: tuple[WeeklyHours, ...] = ()
    """Weekly hours in which the role permits logins; empty: always. What it denies or restricts holds at all hours."""
    time_zone: TimeZone | None = None
    """Where `hours`, `from` and `until` are read; unset: the policy's."""
    deny: Denials = Denials()
    """What its holders may not do, ever."""


class Grant(Table):
    """Who holds which roles, and for how long."""

    users: tuple[Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,30}$")], ...] = Field(min_length=1)
    roles: tuple[str, ...] = Field(min_length=1)
    from_: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None
    reason: str = ""
    """Why, and who asked for it; the access review prints it."""
