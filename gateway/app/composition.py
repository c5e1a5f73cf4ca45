"""The composition root: the only place that names implementations. Built lazily: a command pays for what it uses."""

import getpass
import hashlib
import os
import pwd
import re
import socket
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config import Settings, load_settings
from gateway.environments.administration import Administration
from gateway.environments.lifecycle import Environments, Places
from gateway.environments.reconcile import Reconciler
from gateway.gate import Gate
from gateway.gpus.inventory import Inventory, inventory_of
from gateway.gpus.leases import Leases
from gateway.model import Actor, UserName
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable, LeaseTable
from gateway.store.users import Users
from policies.limits import Allowance, datasets_of, limits_of

if TYPE_CHECKING:
    from gateway.audit.head_key import HeadKey
    from gateway.audit.journal import Journal
    from gateway.auth.authority import Authority
    from gateway.engines.image_builder import ImageBuilder
    from gateway.engines.interface import Engine


class App:
    """One gateway's parts, made on first use and shared afterwards."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.database)

    @cached_property
    def users(self) -> Users:
        return Users(self.database)

    @cached_property
    def table(self) -> EnvironmentTable:
        return EnvironmentTable(self.database)

    @cached_property
    def lease_table(self) -> LeaseTable:
        return LeaseTable(self.database)

    @cached_property
    def engine(self) -> "Engine":
        """The engine the settings name."""
        from gateway.engines.docker.engine import DockerEngine

        return DockerEngine(self.docker_url, gateway_id=self.gateway_id)

    @cached_property
    def image_builder(self) -> "ImageBuilder":
        from gateway.engines.docker.image_build import connect_builder

        return connect_builder(self.docker_url)

    @property
    def docker_url(self) -> str:
        """Docker's API: from the settings, DOCKER_HOST or the usual socket; never from the docker CLI's context."""
        return self.settings.engine.docker_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    @cached_property
    def gateway_id(self) -> str:
        """What marks this gateway's environments in an engine that several gateways may share."""
        return hashlib.sha256(str(self.settings.state_dir.resolve()).encode()).hexdigest()[:12]

    @cached_property
    def authority(self) -> "Authority":
        from gateway.auth.authority import Authority

        return Authority(self.settings.keys_dir)

    @cached_property
    def journal(self) -> "Journal":
        from gateway.audit.journal import Journal

        return Journal(self.settings.journal_dir)

    @cached_property
    def head_key(self) -> "HeadKey":
        """What signs the journal's heads."""
        from gateway.audit.head_key import HeadKey

        return HeadKey(self.settings.keys_dir)

    @property
    def head_name(self) -> str:
        """The journal's name in its heads, given when their key is made."""
        host = self.settings.server.public_host or socket.gethostname()
        return re.sub(r"[^A-Za-z0-9./_-]", "-", f"{host}/devgw").lstrip("./_-")

    @cached_property
    def policy(self) -> PolicyInForce:
        return PolicyInForce(policy_file(self.settings))

    def allowance(self, user: UserName) -> Allowance:
        """Return what the policy in force lets a user have now."""
        return limits_of(self.policy.policy, user, datetime.now(UTC))

    def permitted_datasets(self, user: UserName) -> tuple[str, ...]:
        """Return which of the site's datasets the policy lets a user mount now."""
        return datasets_of(self.policy.policy, user, sorted(self.settings.datasets), datetime.now(UTC))

    @cached_property
    def gate(self) -> Gate:
        return Gate(self.policy.decide, self.journal)

    @cached_property
    def inventory(self) -> Inventory:
        return inventory_of(self.settings.gpus.inventory, self.settings.gpus.cdi_spec_dirs)

    @cached_property
    def leases(self) -> Leases:
        return Leases(self.lease_table, self.inventory)

    @cached_property
    def environments(self) -> Environments:
        places = Places(
            state_dir=self.settings.state_dir,
            datasets={name: dataset.path for name, dataset in self.settings.datasets.items()},
            ca_line=lambda: self.authority.user_ca_line(),  # noqa: PLW0108 - the authority is made when a start needs it
            read_only_root=self.settings.environments.read_only_root,
            start_timeout=self.settings.environments.start_timeout,
            stop_timeout=self.settings.environments.stop_timeout,
        )
        return Environments(self.table, self.users, lambda: self.engine, self.leases, places)

    @cached_property
    def administration(self) -> Administration:
        return Administration(
            users=self.users,
            table=self.table,
            environments=self.environments,
            engine=lambda: self.engine,
            gate=self.gate,
            recorder=self.journal,
            actor=administrator(),
            uid_start=self.settings.environments.uid_start,
        )

    @cached_property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.table, self.engine, self.environments)

    def serve(self) -> None:
        """Run the gateway until it is told to stop."""
        from gateway.app.serving import serve

        serve(self)


def administrator() -> Actor:
    """Return the person at the host's keyboard: the one behind sudo where there is one."""
    return Actor("admin", os.environ.get("SUDO_USER") or _account_name())


def policy_file(settings: Settings) -> Path:
    """Return the policy in force: the one set, the site's, or the shipped default."""
    import policies

    site = settings.config_dir / "policy.toml"
    if settings.policy_file is not None:
        return settings.policy_file
    return site if site.exists() else Path(policies.__file__).parent / "default.toml"


def _account_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser() if "USER" in os.environ else f"uid-{os.getuid()}"
