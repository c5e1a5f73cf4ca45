"""`devgw serve`: the one port. Starts and stops the server; see `client_connection` for what happens then."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import asyncssh
from asyncssh.connection import SSHServerConnectionOptions

from gateway.config import SshSettings
from gateway.gate import Decide
from gateway.model import EnvironmentRef
from gateway.ssh.admission import VERSION, AcceptProtocol, Admission, Admitted
from gateway.ssh.client_connection import ClientConnection
from gateway.ssh.connection_registry import ConnectionRegistry
from gateway.ssh.listening import explained
from gateway.ssh.login import Login
from gateway.ssh.runtime import Runtime
from gateway.ssh.services import Offload, Services
from gateway.ssh.transport import algorithms
from gateway.ssh.transport.byte_budget import UserBudgets
from gateway.ssh.transport.guarded_connection import PACKET_BYTES, GuardedServerConnection
from gateway.ssh.upstream.certificates import CertificateAuthority
from gateway.ssh.upstream.dialer import EnvironmentDialer
from gateway.ssh.upstream.pool import UpstreamPool
from policies.requests import Subject

BACKLOG = 512
CLOSE_SECONDS = 3.0
SHUTDOWN_TEXT = "the gateway is shutting down; connect again"

_log = logging.getLogger(__name__)


class SshServer:
    """The listening server of one process."""

    def __init__(self, settings: SshSettings, services: Services) -> None:
        """Read the keys. Raises: AuthError."""
        self.settings = settings
        self._services = services
        self._offload = Offload()
        self._admission = Admission(settings, services.throttle)
        self.registry = ConnectionRegistry(services.directory, services.environments, self._offload, services.recorder)
        dialer = EnvironmentDialer(
            services.environments,
            self._offload,
            services.recorder,
            settings.start_timeout_seconds,
            self.registry.held,
        )
        authority = CertificateAuthority(services.user_ca_key)
        budgets = UserBudgets(settings.user_buffer_bytes)
        upstreams = UpstreamPool(
            services.environments, dialer, self._offload, authority, settings, services.recorder, budgets
        )
        self._runtime = Runtime(settings, services, self._offload, dialer, upstreams, self.registry, budgets)
        self._host_keys = _stamps(services.host_keys)
        self._options = _options(settings, services)
        self._listener: asyncio.Server | None = None
        self._touching: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; return the port. Raises: ConflictError, ConfigError, as `listening` explains."""
        asyncssh.set_log_level(logging.ERROR)  # its lines hold names from outside, unescaped (invariant 9)
        loop = asyncio.get_running_loop()
        with explained(self.settings.listen_address, self.settings.port):
            self._listener = await loop.create_server(
                lambda: AcceptProtocol(self._admission, self._accept, self.settings.proxy_protocol_from),
                self.settings.listen_address or None,
                self.settings.port,
                backlog=BACKLOG,
                reuse_port=self.settings.reuse_port,
            )
        self._touching = asyncio.create_task(self._touch_regularly())
        port = int(self._listener.sockets[0].getsockname()[1])
        _log.info("listening on port %d", port)
        return port

    def _accept(self, admitted: Admitted) -> GuardedServerConnection:
        self._heed_host_keys()
        login = Login(self._runtime, admitted.address, admitted.descriptor)
        client = ClientConnection(self._runtime, admitted, login)
        loop = asyncio.get_running_loop()
        return GuardedServerConnection(loop, self._options, settings=self.settings, owner=client, judge=login)

    def _heed_host_keys(self) -> None:
        """Take host keys that were rotated; connections that are open keep what they began with."""
        now = _stamps(self._services.host_keys)
        if now == self._host_keys:
            return
        self._host_keys = now
        try:
            self._options = _options(self.settings, self._services)
        except (OSError, ValueError) as exc:
            _log.error("the host keys could not be read again, the old ones stay: %s", type(exc).__name__)

    async def recheck(self, decide: Decide) -> list[str]:
        """Hold every live connection and channel against users, keys and policy as they are now; end what must end.

        To be called after each change of the store or the policy and on the tick of a clock.
        """
        return await self.registry.recheck(decide)

    def subjects(self) -> list[Subject]:
        """Return who is connected, once for each connection."""
        return self.registry.subjects()

    def forget_environment(self, ref: EnvironmentRef) -> None:
        """Drop the connection to an environment that was deleted or restarted."""
        self._runtime.upstreams.forget(ref)

    async def drain(self) -> None:
        """Take no more connections; give those there are their time, then end them."""
        self._admission.drain()
        if self._listener:
            self._listener.close()
        await self.registry.wait_empty(self.settings.drain_seconds)
        await self.close()

    async def close(self) -> None:
        """End everything now."""
        self._admission.drain()
        if self._listener:
            self._listener.close()
        if self._touching:
            self._touching.cancel()
        self.registry.close([report.id for report in self.registry.report()], SHUTDOWN_TEXT)
        await self.registry.wait_empty(CLOSE_SECONDS)
        self._runtime.upstreams.close()
        await asyncio.sleep(0.05)  # let the transports send what was written last
        self._offload.close()

    async def _touch_regularly(self) -> None:
        moved: dict[str, int] = {}
        while True:
            await asyncio.sleep(self.settings.touch_interval_seconds)
            before, moved = moved, {}
            for report in self.registry.report():
                moved[report.id] = report.used_bytes
                if report.channels:
                    await self._touch(report.environment, moved[report.id] - before.get(report.id, 0))

    async def _touch(self, environment: str, moved_bytes: int) -> None:
        try:
            ref = EnvironmentRef.parse(environment)
            await self._offload.quick(self._services.environments.touch, ref, moved_bytes)
        except Exception as error:  # noqa: BLE001 - a missed mark must not end the marking of the others
            _log.warning("the use of an environment could not be noted: %s", error)


async def serve(
    settings: SshSettings,
    services: Services,
    *,
    on_started: Callable[[SshServer, int], Awaitable[None]] | None = None,
    on_reload: Callable[[SshServer], Awaitable[None]] | None = None,
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP calls `on_reload`; a second SIGTERM ends at once."""
    server = SshServer(settings, services)
    port = await server.start()
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def on_stop() -> None:
        (hurry if stop.is_set() else stop).set()

    def on_hangup() -> None:
        if on_reload:
            task = asyncio.ensure_future(on_reload(server))
            reloads.add(task)
            task.add_done_callback(partial(_reloaded, reloads))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    if on_started:
        await on_started(server, port)
    await stop.wait()
    on_stopping()
    draining = asyncio.ensure_future(server.drain())
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not draining.done():
        draining.cancel()
        with suppress(asyncio.CancelledError):
            await draining
        await server.close()


def _reloaded(reloads: "set[asyncio.Task[None]]", task: "asyncio.Task[None]") -> None:
    reloads.discard(task)
    if not task.cancelled() and task.exception():
        _log.error("reload failed; what was loaded before stays: %s", task.exception())


def run(settings: SshSettings, services: Services) -> None:
    """Serve on uvloop."""
    import uvloop

    uvloop.run(serve(settings, services))


def _stamps(paths: Iterable[Path]) -> list[tuple[int, int] | None]:
    """Return what changes when a file is replaced; None where there is none."""
    return [(stat.st_ino, stat.st_mtime_ns) if (stat := _stat(path)) else None for path in paths]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _options(settings: SshSettings, services: Services) -> SSHServerConnectionOptions:
    """Public key only, modern algorithms only, nothing that asyncssh would do on the gateway itself."""
    return SSHServerConnectionOptions(
        config=None,
        server_factory=asyncssh.SSHServer,
        server_version=VERSION,
        server_host_keys=[str(path) for path in services.host_keys if path.exists()],
        send_server_host_keys=True,
        kex_algs=list(settings.kex_algorithms),
        encryption_algs=list(settings.ciphers),
        mac_algs=list(settings.macs),
        signature_algs=list(algorithms.SIGNATURES),
        compression_algs=["none"],
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        line_editor=False,
        encoding=None,
        allow_scp=False,
        login_timeout=settings.login_grace_seconds,
        keepalive_interval=settings.client_alive_interval_seconds,
        keepalive_count_max=settings.client_alive_count_max,
        rekey_bytes=settings.rekey_bytes,
        rekey_seconds=settings.rekey_seconds,
        window=settings.channel_window_bytes,
        max_pktsize=PACKET_BYTES,
    )
