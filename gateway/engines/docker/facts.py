"""What this engine is and can do, read from its `/info`. What follows from it is decided in `spec` and `injection`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.engines.docker.containers import UNLIMITED
from gateway.engines.docker.injection import Injection, injection_of, is_podman
from gateway.engines.interface import EngineReport


@dataclass(frozen=True, slots=True)
class Facts:
    """What of an engine shapes a container.

    `seccomp` is the daemon's default profile, empty without seccomp. `ceilings` are hard limits it cannot exceed.
    `is_podman` says that it is Podman's service, which understands a few things otherwise; `maps_users` that it runs
    without root, so that a user of the host is another inside unless it is told to keep them.
    """

    api_version: tuple[int, int]
    injection: Injection
    seccomp: str
    ceilings: Mapping[str, int] = field(default_factory=dict)
    is_podman: bool = False
    maps_users: bool = False


def facts_of(info: Mapping[str, Any], api_version: str, ceilings: Mapping[str, int]) -> Facts:
    """Read the facts from `/info`, the API's version and the daemon's own limits."""
    major, _, minor = api_version.partition(".")
    return Facts(
        api_version=(int(major), int(minor)),
        injection=injection_of(info),
        seccomp=_security_option(info, "seccomp"),
        ceilings=ceilings,
        is_podman=is_podman(info),
        maps_users=is_podman(info) and bool(info.get("Rootless")),
    )


def report_of(info: Mapping[str, Any], facts: Facts) -> EngineReport:
    """Turn the facts into what an administrator reads."""
    notes = [facts.injection.reason]
    if not facts.seccomp:
        notes.append("the engine has no seccomp: it will not be given environments")
    if facts.seccomp == "unconfined":
        notes.append("the engine's default seccomp profile is 'unconfined': environments ask for the built-in one")
    if info.get("DefaultRuntime") == "nvidia":
        notes.append("the default runtime is 'nvidia': containers that devgw did not make may see every GPU")
    if facts.api_version < (1, 44):
        notes.append("API below 1.44: a file system mounted beneath a read-only dataset stays writable")
    notes += [f"the engine cannot limit {what}" for key, what in _LIMITS.items() if not info.get(key)]
    notes += [f"the engine cannot raise {name} above {limit}" for name, limit in facts.ceilings.items()]
    if any(option.startswith("name=userns") for option in info.get("SecurityOptions") or []):
        notes.append("user namespace remapping is on: mounted directories will not belong to the user inside")
    if facts.is_podman:
        notes.append("this is Podman, through its service of Docker's API: egress is none")
    if facts.maps_users:
        notes.append("Podman runs without root: environments belong to its own user")
        if str(info.get("CgroupVersion")) == "1":
            notes.append(UNLIMITED)
    return EngineReport("docker", str(info.get("ServerVersion", "")), facts.injection.kind, tuple(notes))


_LIMITS = {"MemoryLimit": "memory", "SwapLimit": "swap", "CpuCfsQuota": "processor time", "PidsLimit": "processes"}


def _security_option(info: Mapping[str, Any], name: str) -> str:
    """Read `profile` from an entry such as `name=seccomp,profile=builtin`; an entry without one says `builtin`."""
    for option in info.get("SecurityOptions") or []:
        fields = dict(part.partition("=")[::2] for part in option.split(","))
        if fields.get("name") == name:
            return str(fields.get("profile", "builtin"))
    return ""
