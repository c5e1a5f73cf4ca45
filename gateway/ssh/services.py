"""What the SSH server asks of the rest of the gateway, as protocols; who answers is decided in `gateway.app`.

Every call of Directory and EnvironmentAccess blocks; `Offload` takes them off the event loop.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from gateway.auth.throttle import Throttle
from gateway.engines.interface import Service
from gateway.gate import Budget, Gate, NoBudget, Recorder
from gateway.model import Actor, Environment, EnvironmentRef, Fingerprint, PublicKey, User, UserName
from policies.limits import Allowance
from policies.requests import Subject

Progress = Callable[[str], None]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Directory(Protocol):
    """Users and their keys, as the store has them at this moment."""

    def account(self, name: UserName) -> tuple[User | None, Sequence[PublicKey]]:
        """Return the user, disabled or not, and the keys that may log in as them, both of one moment."""

    def key_used(self, user: UserName, fingerprint: Fingerprint) -> None:
        """Note that a key has logged in just now."""


class EnvironmentAccess(Protocol):
    """The environments and their services. Errors are DevgwErrors whose message is safe for the user."""

    def exists(self, ref: EnvironmentRef) -> bool:
        """Say whether there is such an environment, running or not."""

    def ensure_running(self, ref: EnvironmentRef, progress: Progress, actor: Actor) -> Environment | None:
        """Return when its services answer, starting it for `actor` if need be; then it is what was started.

        `progress` is called only if it takes a moment.
        """

    def dial(self, ref: EnvironmentRef, service: Service) -> socket.socket:
        """Return a connected, non-blocking stream socket, as the engine gives it (invariant 5)."""

    def host_key(self, ref: EnvironmentRef) -> str:
        """Return the pinned public host key line of the environment's sshd."""

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        """Note that the environment is in use."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opens a port of the gateway's own name, on which of their connections."""

    subject: Subject
    ref: EnvironmentRef
    connection: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a user's terminal shows."""

    columns: int
    rows: int
    is_unicode: bool = True


class OwnProgram(Protocol):
    """A command that the gateway answers itself: it runs nothing in the environment, and reads keys alone."""

    interval_seconds: float | None
    """Between two pictures on a terminal; None where it is written once there too."""

    async def picture(self, terminal: Terminal | None) -> str:
        """Return the lines to show now; without a terminal they are written once. Raises: DevgwError."""


StartOwnProgram = Callable[[Caller, Sequence[str]], OwnProgram]
"""From who calls and the words after the command. Raises: UsageError."""


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """Where recordings of terminals go, and what they hold."""

    directory: Path
    cap_bytes: int
    record_input: bool = False


class Access(Protocol):
    """What the policy of this moment says beside its decisions."""

    def allowance(self, user: UserName) -> Allowance:
        """Return the numbers that hold for a user."""

    def trusts(self, ca_fingerprint: str) -> bool:
        """Say whether the policy lists this CA for users' certificates."""


class ServerLimitsOnly:
    """Access where there is no policy to ask: the server's own limits, no CA, no recording."""

    def allowance(self, user: UserName) -> Allowance:  # noqa: ARG002 - everybody's is the same
        return Allowance()

    def trusts(self, ca_fingerprint: str) -> bool:  # noqa: ARG002 - none is
        return False


@dataclass(frozen=True, slots=True)
class Services:
    """All that `gateway.ssh.server.serve` needs besides its settings."""

    directory: Directory
    environments: EnvironmentAccess
    gate: Gate
    recorder: Recorder
    throttle: Throttle
    user_ca_key: Path
    host_keys: tuple[Path, ...]
    """The first is used; all that are there are announced and proved (OpenSSH's PROTOCOL §2.5)."""
    access: Access = field(default_factory=ServerLimitsOnly)
    recordings: RecordingSettings | None = None
    budget: Budget = field(default_factory=NoBudget)
    """How much a user may have written down; a channel that causes more is not read meanwhile."""
    own_ports: Mapping[int, Callable[[Caller], socket.socket]] = field(default_factory=dict)
    """What answers at ports of the gateway's own name: each call returns a connected, non-blocking Unix socket."""
    own_programs: Mapping[str, StartOwnProgram] = field(default_factory=dict)
    """Commands of the gateway's own, by their first word."""
    connections_elsewhere: Callable[[UserName], int] | None = None
    """How many connections a user has in other processes of this gateway; None where there are no others."""


class Offload:
    """Runs blocking calls in two bounded pools, so that a slow start never delays a login."""

    def __init__(self, quick_threads: int = 8, slow_threads: int = 16) -> None:
        self._quick = ThreadPoolExecutor(quick_threads, "devgw-quick")
        self._slow = ThreadPoolExecutor(slow_threads, "devgw-slow")

    async def quick(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call that answers within milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, lambda: call(*args, **kwargs))

    async def slow(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call that may take minutes, such as starting an environment."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Let running calls finish and take no more."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
