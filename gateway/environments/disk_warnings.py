"""Warns of an environment's disk that is nearly full: at 80 and at 95 %, each once until it has fallen under again.

What an environment is told of its disk lies in it (`disk.json`, and `disk_note` for who logs in). What was said is
remembered there too: a gateway that starts anew says nothing twice. `uses` measures; terminals are reached by `tell`.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.engines.interface import Engine
from gateway.environments.account import swap_in
from gateway.environments.disk_limit import DiskUse
from gateway.environments.finding import Finding
from gateway.environments.layout import Layout, disk_error
from gateway.errors import DevgwError
from gateway.model import EnvironmentRef, EnvironmentState
from gateway.store.environments import EnvironmentTable
from policies.quantities import show_about

FILE, NOTE = "disk.json", "disk_note"
LEVELS = (80, 95)

_log = logging.getLogger(__name__)
Owner = Callable[[EnvironmentRef], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class DiskReport:
    """What an environment is told. `level` is the last of LEVELS that was reached, 0 below the first."""

    size_bytes: int
    inodes: int
    percent: int
    level: int
    note: str
    version: int = 1

    @classmethod
    def of(cls, use: DiskUse, contact: str) -> "DiskReport":
        """Say how full it is, and what helps, where that is worth a line."""
        level = max((level for level in LEVELS if use.percent >= level), default=0)
        return cls(use.size_bytes, use.inodes, use.percent, level, _line(use, contact) if level else "")

    @property
    def text(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class DiskWarnings:
    """Looks at every running environment's disk. `owner` says whose uid and gid the files inside are."""

    def __init__(
        self,
        state_dir: Path,
        table: EnvironmentTable,
        uses: Callable[[], Mapping[EnvironmentRef, DiskUse]],
        engine: Callable[[], Engine],
        owner: Owner,
        contact: str,
    ) -> None:
        self._state_dir = state_dir
        self._table = table
        self._uses = uses
        self._engine = engine
        self._owner = owner
        self._contact = contact
        self._levels: dict[EnvironmentRef, int] = {}

    def walk(self, tell: Callable[[EnvironmentRef, str], None]) -> Iterator[Finding]:
        """Look once; yield what must be journaled. A failure of one costs no other its turn."""
        running = [one.ref for one in self._table.all() if one.state is EnvironmentState.RUNNING]
        uses = self._uses()
        self._levels = {ref: level for ref, level in self._levels.items() if ref in running}
        for ref in running:
            try:
                yield from self._look(ref, uses.get(ref), tell)
            except DevgwError as exc:
                _log.error("%s cannot be told of its disk: %s", ref, exc.message)

    def _look(
        self, ref: EnvironmentRef, use: DiskUse | None, tell: Callable[[EnvironmentRef, str], None]
    ) -> Iterator[Finding]:
        layout = Layout.of(self._state_dir, ref)
        before = _told(layout)
        report = DiskReport.of(use, self._contact) if use else None
        level, level_before = report.level if report else 0, self._levels.get(ref, before.get("level", 0))
        self._levels[ref] = level
        failure: DevgwError | None = None
        if before != (json.loads(report.text) if report else {}):
            try:
                self._write(ref, layout, report)
            except DevgwError as exc:  # on a full state directory terminals are told all the same
                failure = exc
        if report and level > level_before:
            tell(ref, report.note)
            yield Finding("disk.warned", ref, report.note)
        if failure is not None:
            raise failure

    def _write(self, ref: EnvironmentRef, layout: Layout, report: DiskReport | None) -> None:
        try:
            if report is None:
                for name in (FILE, NOTE):
                    (layout.config / name).unlink(missing_ok=True)
            else:
                owner = self._owner(ref)
                swap_in(layout.config / NOTE, f"devgw: {report.note}\n" if report.note else "", 0o444, *owner)
                swap_in(layout.config / FILE, report.text, 0o444, *owner)
        except OSError as exc:
            raise disk_error(exc, layout.config) from exc
        self._engine().refresh(ref)


def _told(layout: Layout) -> dict[str, int]:
    """Return what the environment was told last; nothing where that is not to be read."""
    with suppress(OSError, ValueError):
        found = json.loads((layout.config / FILE).read_text())
        if isinstance(found, dict):
            return found
    return {}


def _line(use: DiskUse, contact: str) -> str:
    if use.percent_of_bytes >= use.percent_of_inodes:
        kind, of = "full", f"{show_about(use.used_bytes)} of {show_about(use.size_bytes)}"
    else:
        kind, of = "full of small files", f"{use.used_inodes} of {use.inodes} files and directories"
    return f"your disk is {use.percent} % {kind} ({of}): remove files, or ask {contact} for a larger one"
