"""The process that carries connections of environments to hosts outside, apart from the one that serves SSH.

`process.egress_child` starts it as `python -m gateway.app.egress_process`, writes the settings and then each policy in
force to its standard input, a line of JSON each, and ends it by closing that.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping

import uvloop

from gateway.app.composition import App
from gateway.background.policy_reload import PolicyArchive
from gateway.config import Settings
from gateway.egress.connection import ProxyParts
from gateway.egress.doors import Place
from gateway.egress.limits import ConnectionLimits
from gateway.egress.open_tunnels import OpenTunnels
from gateway.egress.proxy import EgressProxy, Surroundings
from gateway.egress.resolver import Dialer
from gateway.environments.layout import Layout
from gateway.environments.open_hosts import OpenHosts, write_open_hosts
from gateway.errors import DevgwError
from gateway.gate import Gate
from gateway.model import EnvironmentRef, EnvironmentState
from gateway.policy import LoadedPolicy
from gateway.ssh.descriptors import raise_limit
from policies.load import parse_untested

_LINE_MAX = 20 << 20
"""A policy has 16 MiB at most."""
_END_SECONDS = 3.0
_log = logging.getLogger(__name__)


class EgressProcess:
    """The proxy with this gateway's store, policy and journal."""

    def __init__(self, settings: Settings) -> None:
        self._app = App(settings)
        self._adopted = 0
        self._disabled: frozenset[str] = frozenset()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until the orders end. The first is the policy in force."""
        if not await self._follow(orders):
            return
        proxy = asyncio.create_task(EgressProxy(self._parts(), self._surroundings()).run())
        while await self._follow(orders):
            """Each is adopted as it comes; the proxy looks twice a second."""
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)
        others = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task}
        if others:
            await asyncio.wait(others, timeout=_END_SECONDS)  # each writes down how its connection ended

    def end(self) -> None:
        """Have everything on disk."""
        self._app.journal.close()

    async def _follow(self, orders: asyncio.StreamReader) -> bool:
        """Adopt the next policy; False at the end of orders."""
        line = await orders.readline()
        if not line:
            return False
        text = json.loads(line)["text"]
        policy = parse_untested(text, str(self._app.policy.file)) if text else self._archive.last()
        if policy is not None:
            self._app.policy.adopt(LoadedPolicy(text, policy))
            self._adopted += 1
        return True

    @property
    def _archive(self) -> PolicyArchive:
        """Where the policy stands that another worker loaded before its file became faulty."""
        return PolicyArchive(self._app.settings.journal_dir, self._app.settings.policies_dir)

    def _parts(self) -> ProxyParts:
        # not behind the budget of those who come through SSH: the number of connections has bounds of its own
        chosen, journal = self._app.settings.egress, self._app.journal
        return ProxyParts(
            gate=Gate(self._app.policy.decide, journal),
            recorder=journal,
            dialer=Dialer(),
            limits=ConnectionLimits(chosen.max_connections, chosen.connection_rate),
            open_tunnels=OpenTunnels(),
            is_disabled=lambda user: user in self._disabled,
            idle_seconds=chosen.idle_timeout,
            contact=chosen.contact,
        )

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            self._app.policy.decide, lambda: (self._app.database.revision(), self._adopted), self._places
        )

    def _places(self) -> Mapping[EnvironmentRef, Place]:
        """Read whose environments have a door, and tell each what is open to it."""
        users = {user.name: user for user in self._app.users.all()}
        self._disabled = frozenset(name for name, user in users.items() if user.disabled)
        places = {}
        for environment in self._app.table.all():
            ref, user = environment.ref, users.get(environment.ref.user)
            if user is None or environment.state is EnvironmentState.DELETING:
                continue
            uid, gid = (user.uid, user.uid) if os.geteuid() == 0 else (os.getuid(), os.getgid())
            layout = Layout.of(self._app.settings.state_dir, ref)
            hosts = self._app.open_hosts(ref.user, environment.egress)
            self._tell(layout, uid, gid, hosts)
            if hosts.hosts:
                places[ref] = Place(layout.config, uid, gid)
        return places

    @staticmethod
    def _tell(layout: Layout, uid: int, gid: int, hosts: OpenHosts) -> None:
        if not layout.config.is_dir():
            return  # it is being made, and is told then
        try:
            write_open_hosts(layout, uid, gid, hosts)
        except DevgwError as exc:
            _log.warning("%s was not told which hosts are open: %s", layout.ref, exc.message)


async def _main() -> None:
    orders = asyncio.StreamReader(limit=_LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    process = EgressProcess(Settings.model_validate_json(await orders.readline()))
    try:
        await process.run(orders)
    finally:
        process.end()


def main() -> None:
    """Serve until standard input ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [hosts by name] %(message)s")
    raise_limit()
    uvloop.run(_main())


if __name__ == "__main__":
    main()
