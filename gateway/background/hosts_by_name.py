"""Serves hosts outside by name: opens a door for each environment whose policy names any, and tells it which are open.

It runs in a process apart from the one that serves SSH, and is told of each policy in force through a stream of orders.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.audit.journal import Journal
from gateway.background.policy_orders import PolicyOrders
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
from gateway.model import Egress, EnvironmentRef, EnvironmentState, UserName
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.users import Users

_END_SECONDS = 3.0
_log = logging.getLogger(__name__)


class GivingParts(Protocol):
    """Where the parts come from."""

    @property
    def settings(self) -> Settings: ...
    @property
    def policy(self) -> PolicyInForce: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def database(self) -> Database: ...
    @property
    def users(self) -> Users: ...
    @property
    def table(self) -> EnvironmentTable: ...

    def open_hosts(self, user: UserName, egress: Egress) -> OpenHosts:
        """Return what an environment is told of hosts outside."""


@dataclass(frozen=True, slots=True)
class SiteParts:
    """What the proxy needs of this gateway: its settings, policy, journal and store."""

    settings: Settings
    policy: PolicyInForce
    journal: Journal
    database: Database
    users: Users
    environments: EnvironmentTable
    open_hosts: Callable[[UserName, Egress], OpenHosts]

    @classmethod
    def of(cls, site: "GivingParts") -> "SiteParts":
        """Take them from a site, which makes each on first use."""
        return cls(
            site.settings, site.policy, site.journal, site.database, site.users, site.table, site.open_hosts
        )  # fmt: skip


class HostsByName:
    """The proxy with this gateway's store, policy and journal."""

    def __init__(self, site: SiteParts) -> None:
        self._site = site
        settings = site.settings
        self._policies = PolicyOrders(settings.journal_dir, settings.policies_dir, site.policy)
        self._disabled: frozenset[str] = frozenset()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Serve until the orders end. The first is the policy in force."""
        if not await self._policies.follow(orders):
            return
        proxy = asyncio.create_task(EgressProxy(self._parts(), self._surroundings()).run())
        await self._policies.follow_all(orders)  # the proxy looks twice a second
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)
        others = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task}
        if others:
            await asyncio.wait(others, timeout=_END_SECONDS)  # each writes down how its connection ended

    def end(self) -> None:
        """Have everything on disk."""
        self._site.journal.close()

    def _parts(self) -> ProxyParts:
        # not behind the budget of those who come through SSH: the number of connections has bounds of its own
        chosen, journal = self._site.settings.egress, self._site.journal
        return ProxyParts(
            gate=Gate(self._site.policy.decide, journal),
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
            self._site.policy.decide, lambda: (self._site.database.revision(), self._policies.adopted), self._places
        )

    def _places(self) -> Mapping[EnvironmentRef, Place]:
        """Read whose environments have a door, and tell each what is open to it."""
        users = {user.name: user for user in self._site.users.all()}
        self._disabled = frozenset(name for name, user in users.items() if user.disabled)
        places = {}
        for environment in self._site.environments.all():
            ref, user = environment.ref, users.get(environment.ref.user)
            if user is None or environment.state is EnvironmentState.DELETING:
                continue
            uid, gid = (user.uid, user.uid) if os.geteuid() == 0 else (os.getuid(), os.getgid())
            layout = Layout.of(self._site.settings.state_dir, ref)
            hosts = self._site.open_hosts(ref.user, environment.egress)
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
