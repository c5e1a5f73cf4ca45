"""Looks after environments while the gateway serves: at the start all of them, then in rounds, and critical GPU errors.

What is to be done is said by `environments.reconcile`, `environments.rounds` and `gpus.quarantine`; this keeps time,
journals, and brings lines to terminals.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from gateway.audit.event import Event
from gateway.environments.reconcile import Finding
from gateway.errors import DevgwError
from gateway.gpus.activity import watch_xids
from gateway.model import Actor, EnvironmentRef, GpuUuid

if TYPE_CHECKING:
    from gateway.app.composition import App

_log = logging.getLogger(__name__)
_GATEWAY = Actor("gateway", "devgw")
_ROUND_SECONDS = 15
_ROUNDS_TO_TIDY = 4
_POLL_SECONDS = 0.5

Notify = Callable[[EnvironmentRef, str], None]


class EnvironmentMonitor:
    """One per serving gateway. `notify` is called on the event loop."""

    def __init__(self, app: "App", notify: Notify) -> None:
        self._app = app
        self._notify = notify
        self._stop = threading.Event()

    async def run(self) -> None:
        """Settle everything once, then go round until cancelled."""
        threading.Thread(target=watch_xids, args=(self._quarantine, self._stop), name="xids", daemon=True).start()
        try:
            await asyncio.to_thread(reconcile, self._app)
            count = 0
            while True:
                await asyncio.sleep(_ROUND_SECONDS)
                count += 1
                for ref, line in await asyncio.to_thread(self._round, count % _ROUNDS_TO_TIDY == 0):
                    self._notify(ref, line)
        finally:
            self._stop.set()

    def _round(self, tidies: bool) -> list[tuple[EnvironmentRef, str]]:
        """Go round once; a failure must not end all later rounds."""
        said: list[tuple[EnvironmentRef, str]] = []
        try:
            journal_findings(self._app, self._app.rounds.walk(lambda ref, line: said.append((ref, line))))
            if tidies:
                journal_findings(self._app, self._app.reconciler.tidy())
        except DevgwError as exc:
            _log.error("environments could not be looked after: %s (%s)", exc.message, exc.hint)
        except Exception:  # noqa: BLE001 - whatever it was, the next round must come
            _log.exception("a round failed")
        return said

    def _quarantine(self, index: int, xid: int) -> None:
        for uuid in self._app.quarantines.add_after_xid(index, xid):
            _log.error("GPU %s is out of use: Xid %d", uuid, xid)
            reason = f"critical error Xid {xid}"
            self._app.journal.append(Event("gpu.quarantined", _GATEWAY, reason=reason, detail={"gpu": uuid}))


def reconcile(app: "App") -> None:
    """Bring store and engine together and write down what was found; an engine that is away is no reason to stop."""
    try:
        for uuid in await_gpus(app):
            reason = "an environment holds it and this host does not show it: driver, CDI spec or MIG layout changed"
            _log.error("GPU %s: %s", uuid, reason)
            app.journal.append(Event("gpu.lost", _GATEWAY, reason=reason, detail={"gpu": uuid}))
        journal_findings(app, app.reconciler.run())
    except DevgwError as exc:
        _log.error("environments could not be looked after: %s (%s)", exc.message, exc.hint)


def await_gpus(app: "App", pause: Callable[[float], None] = time.sleep) -> list[GpuUuid]:
    """Wait, within bounds, for the GPUs that environments hold, MIG slices too; return those still missing.

    After a boot the driver may be late, and MIG slices are made anew, if at all, by a unit of the site's own.
    """
    held = {lease.gpu for lease in app.lease_table.held()}
    deadline = time.monotonic() + app.settings.gpus.start_wait
    while missing := held - {gpu.uuid for gpu in app.inventory.read().gpus}:
        if time.monotonic() >= deadline:
            break
        pause(_POLL_SECONDS)
    return sorted(missing)


def journal_findings(app: "App", findings: Iterable[Finding]) -> None:
    """Write down what was found, in log and journal."""
    for finding in findings:
        _log.info("%s %s: %s", finding.code, finding.ref, finding.detail)
        app.journal.append(Event(finding.code, _GATEWAY, str(finding.ref), reason=finding.detail))
