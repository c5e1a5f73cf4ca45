"""Ties the SSH server to this gateway's store, environments and policy."""

from functools import partial

from gateway.app.composition import App
from gateway.metrics.socket import connect
from gateway.page.claim import Seal
from gateway.page.connect import PageDoor
from gateway.process.ownership import this_process
from gateway.ssh.services import RecordingSettings, Services
from gateway.top.own_program import own_programs
from policies.ports import METRICS_PORT, PAGE_PORT


def services_of(app: App) -> Services:
    """Name what answers the SSH server's questions."""
    page = PageDoor(app.settings.page_socket, Seal(app.settings.page_seal))
    audit, has_others = app.settings.audit, app.settings.server.workers > 1 or app.liveness is not None
    return Services(
        directory=app.users,
        environments=app.environments,
        gate=app.gate,
        recorder=app.event_budget,
        budget=app.event_budget,
        throttle=app.throttle,
        user_ca_key=app.authority.user_ca_key,
        host_keys=app.authority.host_keys,
        access=app.policy,
        recordings=RecordingSettings(app.settings.recordings_dir, audit.recording_cap, audit.record_input),
        own_ports={METRICS_PORT: lambda _caller: connect(app.settings.metrics_socket), PAGE_PORT: page.connect},
        own_programs=own_programs(app),
        connections_elsewhere=partial(app.live_sessions.count_of_others, this_process()) if has_others else None,
    )
