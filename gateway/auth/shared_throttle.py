"""The throttle that the processes of a site have in common: those that serve, and the command line."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from gateway.auth.proofs import KEEP_SECONDS, Proofs
from gateway.auth.shared_tallies import SharedTallies
from gateway.auth.throttle import Limits, Throttle
from gateway.auth.throttle_store import Memory, SharedFile
from gateway.config import Settings
from gateway.store.database import Database
from gateway.store.login_tallies import LoginTallyTable


class SharedThrottle(Throttle):
    """Counts failed logins; outlives this process, and is every worker's and every gateway's of the site."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> None:
        limits = Limits()
        self._memories: list[SharedTallies] = []
        of = partial(self._memory_of, settings, database, clock)
        failures = of("throttle", 2 * (limits.window_seconds + limits.cap_seconds))
        exempt = (str(network) for network in settings.server.per_source_penalty_exempt)
        proofs = Proofs(clock, of("proofs", KEEP_SECONDS))
        super().__init__(clock, limits, exempt=exempt, memory=failures, proofs=proofs)

    def _memory_of(
        self, settings: Settings, database: Database, clock: Callable[[], float], kind: str, keep_seconds: float
    ) -> Memory:
        """One host's processes have a file in common; those of several hosts the database."""
        if not database.has_locks:
            return SharedFile(settings.state_dir / f"{kind}.jsonl")
        memory = SharedTallies(LoginTallyTable(database, kind), clock, keep_seconds)
        self._memories.append(memory)
        return memory

    async def exchange(self) -> None:
        """Exchange with the other gateways until cancelled; where there can be none, wait for that."""
        if not self._memories:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            for memory in self._memories:
                group.create_task(memory.run())
