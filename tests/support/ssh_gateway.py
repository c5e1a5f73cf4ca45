"""A gateway for tests: the real SSH server on a thread of its own, with a directory, policy and journal in memory."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from gateway.auth.authority import ensure_key
from gateway.auth.keys import parse_public_key
from gateway.auth.throttle import Limits, Throttle
from gateway.config import SshSettings
from gateway.errors import EngineError, NotFoundError
from gateway.gate import Gate
from gateway.model import Actor, Environment, EnvironmentRef, Fingerprint, PublicKey, User, UserName
from gateway.ssh.server import SshServer
from gateway.ssh.services import ServerLimitsOnly, Services
from policies.requests import (
    AgentForwardingRequest,
    Decision,
    ForwardRequest,
    Request,
    ReverseForwardRequest,
    StreamlocalRequest,
    VariableRequest,
)
from tests.fakes.recorder import MemoryRecorder
from tests.support.ssh_environment import SshEnvironment
from tests.support.started_environment import started

T = TypeVar("T")
_UID_IN_STORE = 200_000
"""Of no account: the environments of these tests have uids of their own."""


def lab_policy(request: Request) -> Decision:
    """What a laboratory allows: sessions, its own loopback, some variables; the rest is denied."""
    if isinstance(request, ForwardRequest):
        allowed = request.host.lower() in {"localhost", "127.0.0.1", "::1"}
        return Decision(allowed, "lab.forwards", "ok" if allowed else "only your environment's own loopback is allowed")
    if isinstance(request, ReverseForwardRequest | AgentForwardingRequest):
        return Decision(False, "lab.default", f"{request.action} is not allowed")
    if isinstance(request, StreamlocalRequest):
        return Decision(request.path.startswith("/tmp/"), "lab.streamlocal", "only below /tmp")
    if isinstance(request, VariableRequest):
        return Decision(request.name.startswith("LC_"), "lab.variables", "only LC_*")
    return Decision(True, "lab.members", "member of the laboratory")


def allow_all(_request: Request) -> Decision:
    """Allow whatever is asked."""
    return Decision(True, "test.all", "everything is allowed in this test")


class MemoryDirectory:
    """Users and keys in dictionaries."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.keys_by_user: dict[str, list[PublicKey]] = {}
        self.used: list[tuple[str, str]] = []

    def add(self, name: str, *lines: str) -> None:
        self.users[name] = User(UserName(name), _UID_IN_STORE, datetime.now(UTC))
        self.keys_by_user[name] = [parse_public_key(line) for line in lines]

    def account(self, name: UserName) -> tuple[User | None, Sequence[PublicKey]]:
        return self.users.get(name), self.keys_by_user.get(name, [])

    def key_used(self, user: UserName, fingerprint: Fingerprint) -> None:
        self.used.append((user, fingerprint))


class MemoryEnvironments:
    """Environments of `SshEnvironment`s; a stopped one starts when asked."""

    def __init__(self) -> None:
        self.by_ref: dict[EnvironmentRef, SshEnvironment] = {}
        self.touched: list[tuple[EnvironmentRef, int]] = []
        self.starts = 0

    def exists(self, ref: EnvironmentRef) -> bool:
        return ref in self.by_ref

    def ensure_running(self, ref: EnvironmentRef, progress: Callable[[str], None], actor: Actor) -> Environment:
        if ref not in self.by_ref:
            raise NotFoundError("environment.not-found", f"there is no environment '{ref}'", "devgw list")
        progress("starting your environment …")
        self.starts += 1
        self.by_ref[ref].start()
        return started(ref)

    def dial(self, ref: EnvironmentRef, service: str) -> Any:
        if ref not in self.by_ref:
            raise NotFoundError("environment.not-found", f"there is no environment '{ref}'", "devgw list")
        try:
            return self.by_ref[ref].dial(service)
        except FileNotFoundError as exc:
            raise EngineError("socket.absent", f"the environment's {service} service is not there yet") from exc
        except OSError as exc:
            raise EngineError("environment.stopped", f"the environment is stopped: {exc}") from exc

    def host_key(self, ref: EnvironmentRef) -> str:
        return self.by_ref[ref].host_key

    def touch(self, ref: EnvironmentRef, moved_bytes: int) -> None:
        self.touched.append((ref, moved_bytes))


class TestGateway:
    """The server, its fakes and its users' keys below one directory."""

    __test__ = False

    def __init__(self, root: Path, policy: Callable[[Request], Decision] = lab_policy, **settings: Any) -> None:
        self.root = root
        self.policy = policy
        ca_line = ensure_key(root / "user_ca", "gateway user CA")
        self.host_key_line = ensure_key(root / "host_key", "gateway")
        self.ca_line = ca_line
        self.directory, self.environments, self.recorder = MemoryDirectory(), MemoryEnvironments(), MemoryRecorder()
        access = settings.pop("access", ServerLimitsOnly())
        recordings = settings.pop("recordings", None)
        own_ports = settings.pop("own_ports", {})
        limits = settings.pop("throttle_limits", Limits(failures_per_user=1000, failures_per_address=1000))
        self.throttle = Throttle(time.time, limits)
        self.services = Services(
            self.directory,
            self.environments,
            Gate(self.decide, self.recorder),
            self.recorder,
            self.throttle,
            root / "user_ca",
            (root / "host_key",),
            access,
            recordings,
            own_ports=own_ports,
        )
        self.settings = SshSettings(**{"listen_address": "127.0.0.1", "port": 0, "drain_seconds": 1.0} | settings)
        self.port = 0
        self.loop = uvloop.new_event_loop()
        self.server: SshServer | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def decide(self, request: Request) -> Decision:
        """Answer by the policy of this moment; a test may exchange it."""
        return self.policy(request)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, work: Coroutine[Any, Any, T], timeout_seconds: float = 20) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def start(self) -> None:
        self._thread.start()
        self.port = self.call(self._start())
        (self.root / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {self.host_key_line}\n")

    async def _start(self) -> int:
        self.server = SshServer(self.settings, self.services)
        return await self.server.start()

    def stop(self) -> None:
        if self.server:
            self.call(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()
        for environment in self.environments.by_ref.values():
            environment.remove()

    def add_user(self, name: str, *, running: bool = True, environments: Iterable[str] = ("main",)) -> Path:
        """Make a user with an ed25519 key and environments; return the private key's path."""
        key = self.make_key(name)
        self.directory.add(name, key.with_suffix(".pub").read_text())
        for environment_name in environments:
            ref = EnvironmentRef.parse(name if environment_name == "main" else f"{name}+{environment_name}")
            environment = SshEnvironment(name, self.ca_line)
            self.environments.by_ref[ref] = environment
            if running:
                environment.start()
        return key

    def make_key(self, name: str, *options: str) -> Path:
        path = self.root / f"key-{name}"
        options = options or ("-t", "ed25519")
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", name, "-f", str(path), *options], check=True, timeout=60)
        return path

    def options(self, key: Path | None) -> list[str]:
        """Options of OpenSSH's clients: nothing from this machine's own configuration, no agent, no prompt."""
        pairs = [
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.root / 'known_hosts'}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "ConnectTimeout=15",
        ]
        identity = ["-i", str(key), "-o", "BatchMode=yes"] if key else []
        return ["-F", "none", *identity, *(part for pair in pairs for part in ("-o", pair))]

    def ssh(self, handle: str, key: Path | None, *arguments: str, before: Sequence[str] = ()) -> list[str]:
        """Return an ssh command line."""
        return ["ssh", *before, *self.options(key), "-p", str(self.port), f"{handle}@127.0.0.1", *arguments]

    def run(self, handle: str, key: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command through the gateway."""
        before = options.pop("before", ())
        options.setdefault("stdin", subprocess.DEVNULL) if "input" not in options else None
        command = self.ssh(handle, key, *arguments, before=before)
        return subprocess.run(command, capture_output=True, timeout=options.pop("timeout", 60), check=False, **options)
