"""Runs the gateway: listens on the one port, and starts and ends what `background` does beside it."""

import asyncio
import gc
from functools import partial

import uvloop

from gateway.app.composition import App
from gateway.app.ssh_services import services_of
from gateway.audit.event import Event
from gateway.audit.segments import last_written_at
from gateway.background.access_watch import AccessWatch, GrantNotice
from gateway.background.session_publisher import SessionPublisher, forget
from gateway.background.terminal_lines import TerminalLines
from gateway.background.watchdog import Watchdog
from gateway.model import GATEWAY
from gateway.process.log_format import write_log
from gateway.process.ownership import this_process
from gateway.process.supervisor import Supervisor, reserve
from gateway.process.systemd import ServiceManager
from gateway.process.worker import Notify, WorkerLink
from gateway.ssh.descriptors import raise_limit
from gateway.ssh.server import SshServer
from gateway.ssh.server import serve as serve_ssh
from gateway.ssh.transport.library import check_library

_COLLECTION = (700, 10, 10)
"""Python's own thresholds; a command that ends soon has higher ones."""


def run(app: App) -> int:
    """Serve, in one process or in several, until told to stop; return the exit code. Raises: DevgwError."""
    check_library(may_be_unknown=app.settings.server.unknown_asyncssh)
    if app.settings.server.workers > 1:
        return _serve_with_workers(app)
    write_log(app.settings.log.format)
    ServingProcess(app).run()
    return 0


def _serve_with_workers(app: App) -> int:
    """Have several processes serve; return the worst of their exit codes. In a worker: serve."""
    write_log(app.settings.log.format, names_process=True)
    reserved, port = reserve(app.settings.server)
    supervisor = Supervisor(app.settings.server.workers, port, ServiceManager(), reserved=reserved)
    outcome = supervisor.run()
    if isinstance(outcome, WorkerLink):
        ServingProcess(app.with_server(port=port, reuse_port=True), outcome).run()
        return 0
    if supervisor.has_served:
        app.duties.journal_maintenance.sign_last()
    return outcome


class ServingProcess:
    """One process that serves; with a link, one worker of several. The first one also does what must be done once."""

    def __init__(self, app: App, link: WorkerLink | None = None) -> None:
        self._app = app
        self._link = link
        self._manager = link or ServiceManager()
        self._has_duties = link is None or link.index == 0
        self._place: dict[str, str | int | float | bool | None] = {"worker": link.index} if link else {}
        if app.settings.instance:
            self._place["gateway"] = app.settings.instance
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: AccessWatch | None = None
        self._lines: TerminalLines | None = None
        self._away_since = last_written_at(app.settings.journal_dir)

    def run(self) -> None:
        """Serve until SIGTERM, then drain. Raises: DevgwError, before it listens."""
        app = self._app
        app.authority.ensure()
        if app.liveness:
            app.liveness.begin()
        if self._link and self._link.joins:
            app.duties.policy_reloader.join()
        else:
            app.duties.policy_reloader.begin()
        if self._has_duties:
            app.duties.journal_maintenance.begin()
            app.duties.disk_reserve.begin()
        raise_limit()
        try:
            serving = serve_ssh(
                app.settings.server,
                services_of(app),
                on_started=self._on_started,
                on_reload=self._on_reload,
                on_stopping=self._manager.stopping,
            )
            gc.freeze()  # what is there now stays; from here on garbage is collected as usual
            gc.set_threshold(*_COLLECTION)
            uvloop.run(serving)
        finally:
            self._end()

    async def _on_started(self, server: SshServer, port: int) -> None:
        app, duties = self._app, self._app.duties
        beat = app.liveness.beat if app.liveness else None
        publisher = SessionPublisher(app.live_sessions, server.registry, this_process(), beat)
        grants = (
            GrantNotice(app.journal, self._away_since, lambda: duties.leadership.leads) if self._has_duties else None
        )
        self._watch = AccessWatch(app.database.revision, app.policy, duties.policy_reloader, server, publisher, grants)
        works = {
            "who is connected": publisher.run,
            "changes of access": self._watch.run,
            "the service manager's watchdog": self._manager.keep_watchdog,
            "failed logins": app.throttle.exchange,
        }
        if self._link:
            self._link.listen(server.registry.notify)
        if (lines := duties.terminal_lines(server.registry.notify)) is not None:
            self._lines, works["lines for terminals"] = lines, lines.run
        if self._has_duties:
            duties.metrics_publishing.start()
            works["the page"] = app.page_child.run
            works["environments"] = partial(duties.leadership.lead, partial(self._lead, server))
        watchdog = duties.watchdog if self._has_duties else Watchdog()
        self._tasks = {asyncio.create_task(watchdog.keep(name, work)) for name, work in works.items()}
        app.journal.submit(Event("gateway.started", GATEWAY, detail=self._place | {"port": port}))
        self._manager.ready()

    async def _lead(self, server: SshServer) -> None:
        """Do what one gateway of the site does for all, until cancelled."""
        app = self._app
        app.duties.start_sampling()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(app.duties.environment_monitor.run(self._notify(server)))
                group.create_task(app.duties.watchdog.keep("hosts by name", app.egress_child.run))
        finally:
            app.duties.stop_sampling()

    def _notify(self, server: SshServer) -> Notify:
        """Return what writes a line to every terminal of an environment, whichever process of the site serves it."""
        if self._lines:
            return self._lines.say
        return self._link.everywhere(server.registry.notify) if self._link else server.registry.notify

    async def _on_reload(self, _server: SshServer) -> None:
        if self._watch is None:
            return  # it is starting, and reads the policy anyway
        self._manager.reloading()
        try:
            await self._watch.reload()
        finally:
            self._manager.ready()

    def _end(self) -> None:
        app = self._app
        if self._has_duties:
            app.duties.stop_sampling()
            app.duties.metrics_publishing.stop()
        forget(app.live_sessions, this_process(), app.liveness.end if app.liveness else None)
        app.event_budget.flush()
        app.journal.append(Event("gateway.stopped", GATEWAY, detail=self._place))
        if self._has_duties:
            app.duties.disk_reserve.end()
            app.duties.journal_maintenance.end()
        app.journal.close()
