"""Looks after environments while the gateway serves: at the start all of them, then in rounds, and critical GPU errors.

`environments.reconcile`, `environments.rounds` and `gpus.quarantine` say what is to be done; this keeps time, journals,
and brings lines to terminals.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from gateway.audit.event import Event
from gateway.audit.events import finding_of
from gateway.background.watchdog import Watchdog
from gateway.environments.finding import Finding
from gateway.errors import DevgwError
from gateway.gate import Recorder
from gateway.gpus.activity import watch_xids
from gateway.gpus.reading import Reading
from gateway.model import GATEWAY, EnvironmentRef, GpuUuid

_log = logging.getLogger(__name__)
ROUNDS = "rounds of environments"
_ROUND_SECONDS = 15
_ROUNDS_TO_TIDY = 4
_POLL_SECONDS = 0.5
_NOT_SHOWN = "an environment holds it and this host does not show it: driver, CDI spec or MIG layout changed"

Notify = Callable[[EnvironmentRef, str], None]


class Reconciling(Protocol):
    """Brings store and engine together; see `environments.reconcile`."""

    def run(self) -> Iterator[Finding]: ...
    def tidy(self) -> Iterator[Finding]: ...


class Round(Protocol):
    """One look at every running environment; see `environments.rounds` and `environments.disk_warnings`."""

    def walk(self, tell: Notify) -> Iterator[Finding]: ...


class XidQuarantine(Protocol):
    """Takes GPUs out of use after a critical error; see `gpus.quarantine`."""

    def add_after_xid(self, index: int, xid: int) -> Iterable[GpuUuid]: ...


@dataclass(frozen=True, slots=True)
class HeldGpus:
    """The GPUs that environments hold and those this host shows, and how long to wait at the start for the former."""

    held: Callable[[], set[GpuUuid]]
    read: Callable[[], Reading]
    wait_seconds: float

    def missing(self, pause: Callable[[float], None] = time.sleep) -> list[GpuUuid]:
        """Wait, within bounds, for the GPUs that environments hold, MIG slices too; return those still missing.

        After a boot the driver may be late, and MIG slices are made anew, if at all, by a unit of the site's own.
        """
        wanted = self.held()
        deadline = time.monotonic() + self.wait_seconds
        while missing := wanted - {gpu.uuid for gpu in self.read().gpus}:
            if time.monotonic() >= deadline:
                break
            pause(_POLL_SECONDS)
        return sorted(missing)


class EnvironmentMonitor:
    """One per serving gateway."""

    def __init__(
        self,
        reconciler: Callable[[], Reconciling],
        rounds: Sequence[Callable[[], Round]],
        gpus: HeldGpus,
        quarantines: XidQuarantine,
        recorder: Recorder,
        watchdog: Watchdog,
    ) -> None:
        self._reconciler = reconciler
        self._rounds = rounds
        self._gpus = gpus
        self._quarantines = quarantines
        self._recorder = recorder
        self._watchdog = watchdog
        self._stop = threading.Event()

    async def run(self, notify: Notify) -> None:
        """Settle everything once, then go round until cancelled. `notify` is called on the event loop."""
        self._stop = threading.Event()  # a gateway may lead, lead no more, and lead again
        self._watchdog.keep_thread("critical GPU errors", partial(watch_xids, self.quarantine, self._stop), self._stop)
        try:
            await asyncio.to_thread(self._watchdog.beat, ROUNDS)  # what an earlier gateway wrote counts no more
            await asyncio.to_thread(self.settle)
            await self._watchdog.keep(ROUNDS, lambda: self._go_rounds(notify))
        finally:
            self._stop.set()

    async def _go_rounds(self, notify: Notify) -> None:
        count = 0
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            is_fourth = count % _ROUNDS_TO_TIDY == _ROUNDS_TO_TIDY - 1
            for ref, line in await asyncio.to_thread(self.go_round, tidies=is_fourth):
                notify(ref, line)
            count += 1
            if is_fourth or count == 1:
                await asyncio.to_thread(self._watchdog.beat, ROUNDS)

    def settle(self) -> None:
        """Bring store and engine together and journal what was found; an engine that is away is no reason to stop."""
        try:
            for uuid in self._gpus.missing():
                _log.error("GPU %s: %s", uuid, _NOT_SHOWN)
                self._write(Event("gpu.lost", GATEWAY, reason=_NOT_SHOWN, detail={"gpu": uuid}))
            self._journal(self._reconciler().run())
        except DevgwError as exc:
            _log.error("environments could not be looked after: %s (%s)", exc.message, exc.hint)
        except Exception:  # noqa: BLE001 - whatever it was, the rounds must come
            _log.exception("environments could not be settled")

    def go_round(self, *, tidies: bool) -> list[tuple[EnvironmentRef, str]]:
        """Go round once and return the lines for terminals; a failure must not end all later rounds."""
        said: list[tuple[EnvironmentRef, str]] = []
        for one in self._rounds:
            self._do(partial(_walk, one, lambda ref, line: said.append((ref, line))))
        if tidies:
            self._do(lambda: self._reconciler().tidy())
        return said

    def _do(self, work: Callable[[], Iterator[Finding]]) -> None:
        try:
            self._journal(work())
        except DevgwError as exc:
            _log.error("environments could not be looked after: %s (%s)", exc.message, exc.hint)
        except Exception:  # noqa: BLE001 - whatever it was, the next round must come
            _log.exception("a round failed")

    def quarantine(self, index: int, xid: int) -> None:
        """Take a GPU out of use after a critical error."""
        for uuid in self._quarantines.add_after_xid(index, xid):
            _log.error("GPU %s is out of use: Xid %d", uuid, xid)
            reason = f"critical error Xid {xid}"
            self._write(Event("gpu.quarantined", GATEWAY, reason=reason, detail={"gpu": uuid}))

    def _journal(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            _log.info("%s %s: %s", finding.code, finding.ref, finding.detail)
            try:
                self._write(finding_of(finding.code, str(finding.ref), finding.detail, finding.started))
            except DevgwError as exc:  # the environments after this one get their turn
                _log.error("%s %s could not be journaled: %s", finding.code, finding.ref, exc.message)

    def _write(self, event: Event) -> None:
        self._recorder.submit(event).result()


def _walk(one: Callable[[], Round], tell: Notify) -> Iterator[Finding]:
    return one().walk(tell)
