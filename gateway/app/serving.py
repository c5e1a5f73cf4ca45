"""Runs the gateway: listen, and hold live sessions against every change of users, keys, policy and time."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import uvloop

from gateway.app.care import Care
from gateway.app.directory import StoredDirectory, StoredEnvironments
from gateway.audit.event import Event
from gateway.auth.throttle import FileMemory, Throttle
from gateway.errors import ConfigError, DevgwError
from gateway.model import Actor
from gateway.ssh.server import SshServer
from gateway.ssh.server import serve as serve_ssh
from gateway.ssh.services import Services

if TYPE_CHECKING:
    from gateway.app.composition import App

_log = logging.getLogger(__name__)
_GATEWAY = Actor("gateway", "devgw")
_LOOK_SECONDS = 0.5
_CLOCK_SECONDS = 15  # allowed hours and expiry dates bite within this time even when nothing is changed


class Watch:
    """Looks for changes of access and has live sessions rechecked. One task of the server's event loop."""

    def __init__(self, app: "App", server: SshServer) -> None:
        self._app = app
        self._server = server
        self._revision = app.database.revision()

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        ticks = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            ticks += 1
            with suppress(DevgwError):
                if await asyncio.to_thread(self._has_changed) or ticks * _LOOK_SECONDS % _CLOCK_SECONDS == 0:
                    await self._server.recheck(self._app.policy.decide)

    async def reload(self) -> None:
        """Take the policy file as it is now, changed or not (SIGHUP)."""
        await asyncio.to_thread(self._reload_policy)
        await self._server.recheck(self._app.policy.decide)

    def _has_changed(self) -> bool:
        revision = self._app.database.revision()
        changed, self._revision = revision != self._revision, revision
        if self._app.policy.has_changed():
            changed = self._reload_policy() or changed
        return changed

    def _reload_policy(self) -> bool:
        file = str(self._app.policy.file)
        try:
            self._app.policy.reload()
        except ConfigError as exc:
            _log.error("the policy stays as it was: %s", exc.message)
            self._app.journal.append(Event("policy.refused", _GATEWAY, reason=exc.message, detail={"file": file}))
            return False
        _log.info("policy loaded from %s", file)
        self._app.journal.append(Event("policy.loaded", _GATEWAY, detail={"file": file}))
        return True


def serve(app: "App") -> None:
    """Serve until SIGTERM, then drain. Raises: DevgwError, before anything listens."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    _require_one_notebook_port(app)
    app.authority.ensure()
    app.journal.append(Event("policy.loaded", _GATEWAY, detail={"file": str(app.policy.file)}))
    services = Services(
        directory=StoredDirectory(app.users),
        environments=StoredEnvironments(app.environments, app.table),
        gate=app.gate,
        recorder=app.journal,
        throttle=Throttle(clock=time.time, memory=FileMemory(app.settings.state_dir / "throttle.json")),
        user_ca_key=app.authority.user_ca_key,
        host_keys=app.authority.host_keys,
    )
    tasks: set[asyncio.Task[None]] = set()
    watches: list[Watch] = []

    async def on_started(server: SshServer, port: int) -> None:
        watches.append(Watch(app, server))
        tasks.add(asyncio.create_task(watches[0].run()))
        tasks.add(asyncio.create_task(Care(app, server.registry.notify).run()))
        app.journal.submit(Event("gateway.started", _GATEWAY, detail={"port": port}))

    async def on_reload(_server: SshServer) -> None:
        await watches[0].reload()

    try:
        uvloop.run(serve_ssh(app.settings.server, services, on_started=on_started, on_reload=on_reload))
    finally:
        app.journal.append(Event("gateway.stopped", _GATEWAY))
        app.journal.close()


def _require_one_notebook_port(app: "App") -> None:
    ours, theirs = app.settings.server.notebook_port, app.policy.policy.notebook_port
    if ours != theirs:
        raise ConfigError(
            "config.notebook-port",
            f"server.notebook_port is {ours}, but {app.policy.file} says notebook_port = {theirs}",
            "make them the same",
        )
