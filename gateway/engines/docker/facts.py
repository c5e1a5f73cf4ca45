"""What this engine is and can do, read from its `/info`. What follows from it is decided in `spec` and `injection`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.engines.docker.containers import OWN_ULIMITS, UNLIMITED
from gateway.engines.docker.injection import Injection, injection_of, is_podman
from gateway.engines.docker.keep_id import RUNTIME
from gateway.engines.interface import EngineReport

MAPPED_AWAY = "Docker runs without root and keeps no user's id, so what is mounted would belong to somebody else inside"
KEEP_THEM = f"name the runtime '{RUNTIME}' in its daemon.json (docs/reference/docker-engine.md)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What of an engine shapes a container.

    `seccomp` is the daemon's default profile, empty without seccomp. `ceilings` are hard limits it cannot exceed;
    `processors` is how many its host has, 0 where it does not say.
    `is_podman` says that it is Podman's service, which understands a few things otherwise. `maps_users` says that it
    runs without root, so that a user of the host is another inside, unless it is told to keep them: Podman, and Docker
    with our runtime (`keeps_user`), keep their own, the `owner`, whose uid is None where it cannot be told.
    `remaps_users` says that it maps them with root. `drops_limits` says that it can hold none, whatever it answers.
    """

    api_version: tuple[int, int]
    injection: Injection
    seccomp: str
    ceilings: Mapping[str, int] = field(default_factory=dict)
    processors: int = 0
    is_podman: bool = False
    maps_users: bool = False
    keeps_user: bool = False
    remaps_users: bool = False
    drops_limits: bool = False
    owner: int | None = None

    @property
    def product(self) -> str:
        """The engine's name, for messages."""
        return "Podman" if self.is_podman else "Docker"


def facts_of(info: Mapping[str, Any], api_version: str, ceilings: Mapping[str, int], owner: int | None = None) -> Facts:
    """Read the facts from `/info`, the API's version, the daemon's own limits and its uid."""
    major, _, minor = api_version.partition(".")
    return Facts(
        api_version=(int(major), int(minor)),
        injection=injection_of(info),
        seccomp=_security_option(info, "seccomp"),
        ceilings=ceilings,
        processors=int(info.get("NCPU") or 0),
        is_podman=is_podman(info),
        maps_users=_is_rootless(info),
        keeps_user=is_podman(info) or RUNTIME in (info.get("Runtimes") or {}),
        drops_limits=drops_limits(info),
        remaps_users=remaps_users(info),
        owner=owner,
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
    if facts.maps_users and not facts.keeps_user:
        notes.append(f"{MAPPED_AWAY}: it will not be given environments")
    if facts.drops_limits:
        notes.append(UNLIMITED)
    else:
        notes += [f"the engine cannot limit {what}" for what in missing_limits(info)]
    notes += [f"the engine cannot raise {name} above {limit}" for name, limit in facts.ceilings.items()]
    if remaps_users(info):
        notes.append("user namespace remapping is on: mounted directories will not belong to the user inside")
    if facts.is_podman:
        notes.append("this is Podman, through its service of Docker's API")
    if facts.maps_users and facts.keeps_user:
        notes.append(f"{facts.product} runs without root: environments belong to its own user, and egress is none")
        notes += [OWN_ULIMITS] if facts.is_podman else []
    return EngineReport("docker", str(info.get("ServerVersion", "")), facts.injection.kind, tuple(notes))


_LIMITS = {"MemoryLimit": "memory", "SwapLimit": "swap", "CpuCfsQuota": "processor time", "PidsLimit": "processes"}


def missing_limits(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the engine cannot limit, in words. Where it drops limits it says all the same that it has them."""
    return tuple(what for key, what in _LIMITS.items() if drops_limits(info) or not info.get(key))


def drops_limits(info: Mapping[str, Any]) -> bool:
    """Say whether limits are taken and not kept: by an engine without root, on version 1 of cgroups.

    Podman says all the same that it has them; Docker says that it has no driver of cgroups.
    """
    is_without = str(info.get("CgroupVersion")) == "1" if is_podman(info) else info.get("CgroupDriver") == "none"
    return _is_rootless(info) and is_without


def remaps_users(info: Mapping[str, Any]) -> bool:
    """Say whether a daemon with root maps users all the same (`userns-remap`)."""
    return _has_option(info, "userns")


def _is_rootless(info: Mapping[str, Any]) -> bool:
    return _has_option(info, "rootless") or bool(info.get("Rootless"))  # the second is Podman's


def _has_option(info: Mapping[str, Any], name: str) -> bool:
    return any(option.split(",")[0] == f"name={name}" for option in info.get("SecurityOptions") or [])


def _security_option(info: Mapping[str, Any], name: str) -> str:
    """Read `profile` from an entry such as `name=seccomp,profile=builtin`; an entry without one says `builtin`."""
    for option in info.get("SecurityOptions") or []:
        fields = dict(part.partition("=")[::2] for part in option.split(","))
        if fields.get("name") == name:
            return str(fields.get("profile", "builtin"))
    return ""
