"""Runs the gateway: listen, and hold live sessions against every change of users, keys, policy and time."""

import asyncio
import gc
import logging
import threading
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from gateway.app.access import PolicyAccess
from gateway.app.directory import StoredDirectory, StoredEnvironments
from gateway.audit.event import Event
from gateway.auth.throttle import Throttle
from gateway.auth.throttle_store import SharedFile
from gateway.background.environment_monitor import EnvironmentMonitor
from gateway.background.expiry import Expiry
from gateway.background.gpu_sampling import sample
from gateway.background.journal_maintenance import Oversight
from gateway.background.session_publisher import SessionPublisher
from gateway.config import Settings
from gateway.errors import DevgwError
from gateway.model import Actor, EnvironmentRef
from gateway.process.supervisor import Supervisor, reserve
from gateway.process.systemd import ServiceManager
from gateway.process.worker import Notify, WorkerLink
from gateway.ssh.server import SshServer
from gateway.ssh.server import serve as serve_ssh
from gateway.ssh.services import RecordingSettings, Services

if TYPE_CHECKING:
    from gateway.app.composition import App

_log = logging.getLogger(__name__)
_GATEWAY = Actor("gateway", "devgw")
_LOOK_SECONDS = 0.5
_COLLECTION = (700, 10, 10)
"""Python's own thresholds; a command that ends soon has higher ones."""
_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class Watch:
    """Looks for changes of access and has live sessions rechecked. One task of the server's event loop."""

    def __init__(self, app: "App", server: SshServer, oversight: Oversight, publisher: SessionPublisher) -> None:
        self._app = app
        self._roster = publisher
        self._server = server
        self._oversight = oversight
        self._revision = app.database.revision()
        self._clock = Expiry()
        self._is_due = False  # stays so when a recheck failed

    async def run(self) -> None:
        """Look twice a second until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._look()
            except Exception as exc:  # noqa: BLE001 - whatever failed, the next look must come
                _log.error("access could not be looked at again: %s", exc)

    async def _look(self) -> None:
        changed = await asyncio.to_thread(self._has_changed)
        self._is_due = self._has_struck() or changed or self._is_due
        if self._is_due:
            await self._roster.end_killed()
            await self._server.recheck(self._app.policy.decide)
            self._is_due = False

    async def reload(self) -> None:
        """Take the policy file as it is now, changed or not (SIGHUP)."""
        await asyncio.to_thread(self._oversight.reload_policy)
        await self._server.recheck(self._app.policy.decide)

    def _has_changed(self) -> bool:
        revision = self._app.database.revision()
        changed, self._revision = revision != self._revision, revision
        if self._app.policy.has_changed():
            changed = self._oversight.reload_policy() or changed
        return changed

    def _has_struck(self) -> bool:
        return self._clock.has_struck(self._app.policy.policy, self._server.registry.subjects(), datetime.now(UTC))


def throttle_of(settings: Settings) -> Throttle:
    """Return what counts failed logins; it outlives this process and is every worker's."""
    exempt = (str(network) for network in settings.server.per_source_penalty_exempt)
    return Throttle(time.time, exempt=exempt, memory=SharedFile(settings.state_dir / "throttle.jsonl"))


def serve(app: "App", link: WorkerLink | None = None) -> None:
    """Serve until SIGTERM, then drain; with a link, as one worker of several. Raises: DevgwError, before it listens."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    has_duties = link is None or link.index == 0
    app.authority.ensure()
    oversight = Oversight(app)
    if link and link.joins:
        oversight.join(has_duties=has_duties)
    else:
        oversight.begin()
    tasks: set[asyncio.Task[None]] = set()
    watches: list[Watch] = []
    stop_sampling = threading.Event()
    manager = link or ServiceManager()

    async def on_started(server: SshServer, port: int) -> None:
        publisher = SessionPublisher(app.live_sessions, server.registry, app.process)
        watches.append(Watch(app, server, oversight, publisher))
        tasks.add(asyncio.create_task(publisher.run()))
        tasks.add(asyncio.create_task(watches[0].run()))
        if link:
            link.listen(server.registry.notify)
        if has_duties:
            threading.Thread(target=sample, args=(app, stop_sampling), name="sample", daemon=True).start()
            tasks.add(asyncio.create_task(EnvironmentMonitor(app, _notify(server, link)).run()))
        tasks.add(asyncio.create_task(manager.keep_watchdog()))
        app.journal.submit(Event("gateway.started", _GATEWAY, detail=_place(link) | {"port": port}))
        manager.ready()

    async def on_reload(_server: SshServer) -> None:
        manager.reloading()
        try:
            await watches[0].reload()
        finally:
            manager.ready()

    try:
        serving = serve_ssh(
            app.settings.server,
            services_of(app),
            on_started=on_started,
            on_reload=on_reload,
            on_stopping=manager.stopping,
        )
        gc.freeze()  # what is there now stays; from here on garbage is collected as usual
        gc.set_threshold(*_COLLECTION)
        uvloop.run(serving)
    finally:
        stop_sampling.set()
        _clear_roster(app)
        app.journal.append(Event("gateway.stopped", _GATEWAY, detail=_place(link)))
        oversight.end()
        app.journal.close()


def serve_with_workers(app: "App") -> int:
    """Have several processes serve; return the worst of their exit codes. In a worker: serve. Raises: DevgwError."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT.replace("%(message)", "[%(process)d] %(message)"))
    reserved, port = reserve(app.settings.server)
    supervisor = Supervisor(app.settings.server.workers, port, ServiceManager(), reserved=reserved)
    outcome = supervisor.run()
    if isinstance(outcome, WorkerLink):
        serve(app.with_server(port=port, reuse_port=True), outcome)
        return 0
    if supervisor.has_served:
        _sign_last(app)
    return outcome


def services_of(app: "App") -> Services:
    """Name what answers the SSH server's questions."""
    has_others = app.settings.server.workers > 1
    return Services(
        directory=StoredDirectory(app.users),
        environments=StoredEnvironments(app.environments, app.table),
        gate=app.gate,
        recorder=app.journal,
        throttle=throttle_of(app.settings),
        user_ca_key=app.authority.user_ca_key,
        host_keys=app.authority.host_keys,
        access=PolicyAccess(app.policy),
        recordings=_recordings(app.settings),
        connections_elsewhere=partial(app.live_sessions.count_of_others, app.process) if has_others else None,
    )


def _notify(server: SshServer, link: WorkerLink | None) -> Notify:
    """Return what writes a line to every terminal of an environment, whichever worker serves it."""

    def notify(ref: EnvironmentRef, line: str) -> None:
        server.registry.notify(ref, line)
        if link:
            link.tell(ref, line)

    return notify


def _place(link: WorkerLink | None) -> dict[str, str | int | float | bool | None]:
    return {"worker": link.index} if link else {}


def _sign_last(app: "App") -> None:
    """Sign what the last worker wrote, after it: each ends in its own time."""
    try:
        Oversight(app).sign_last()
    except DevgwError as exc:
        _log.error("journal head: %s", exc.message)


def _clear_roster(app: "App") -> None:
    """Nobody is connected any more; what could not be removed is known as a dead process's later."""
    try:
        app.live_sessions.clear(app.process)
    except DevgwError as exc:
        _log.warning("the list of who is connected could not be cleared: %s", exc.message)


def _recordings(settings: Settings) -> RecordingSettings:
    return RecordingSettings(settings.recordings_dir, settings.audit.recording_cap, settings.audit.record_input)
