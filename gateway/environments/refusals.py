"""Wrong notebook passwords, from what environments report: new ones become one finding a look, with their number."""

from collections.abc import Iterator
from datetime import datetime

from gateway.environments.finding import Finding
from gateway.environments.status import Status
from gateway.model import EnvironmentRef


class Refusals:
    """What was reported so far. `since` is when this gateway began to look: what is older was written down before."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._counted: dict[EnvironmentRef, int] = {}

    def news(self, ref: EnvironmentRef, status: Status) -> Iterator[Finding]:
        """Yield what has come since the last look; a number that fell is a new start of the environment."""
        before, now = self._counted.get(ref), status.refused_logins
        self._counted[ref] = now
        if before is None:
            before = 0 if status.refused_at is not None and status.refused_at >= self._since else now
        new = now if now < before else now - before
        if new:
            last = f"; the last at {status.refused_at:%Y-%m-%d %H:%M:%S} UTC" if status.refused_at else ""
            yield Finding("notebook.refused", ref, f"{new} wrong notebook password{'s' if new > 1 else ''}{last}")
