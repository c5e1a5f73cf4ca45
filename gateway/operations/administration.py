"""What an administrator may do, joined from the parts of a site: each act is made when a command asks for it."""

from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

from gateway.audit.store_comparison import Discrepancy
from gateway.config import Settings
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.reconcile import Reconciler
from gateway.gate import Gate
from gateway.gpus.lease_extension import LeaseExtension
from gateway.gpus.leases import Leases
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.waiting import Waiting
from gateway.images.channels import Channels
from gateway.operations.environments import EnvironmentOperations, EnvironmentParts
from gateway.operations.gpus import GpuOperations
from gateway.operations.keys import KeyOperations
from gateway.operations.nodes import NodeOperations
from gateway.operations.recorded import Recorded
from gateway.operations.sessions import SessionOperations
from gateway.operations.users import UserOperations
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.drains import DrainTable
from gateway.store.environments import EnvironmentTable
from gateway.store.images import ImageTable
from gateway.store.leases import LeaseTable
from gateway.store.sessions import LiveSessionTable
from gateway.store.users import Users

if TYPE_CHECKING:
    from gateway.audit.head_signing import HeadSigner
    from gateway.auth.authority import Authority
    from gateway.auth.throttle import Throttle
    from gateway.doctor.doctor import Sources
    from gateway.engines.image_builder import ImageBuilder
    from gateway.engines.image_store import ImageStore
    from gateway.engines.interface import Engine
    from gateway.operations.arrival import ArrivalOperations
    from gateway.operations.backup import BackupOperations
    from gateway.operations.bans import BanOperations
    from gateway.operations.channels import ChannelOperations
    from gateway.operations.departure import DepartureOperations
    from gateway.operations.diagnose import DiagnoseOperations
    from gateway.operations.host_keys import HostKeyOperations
    from gateway.operations.image_contents import ImageContents
    from gateway.operations.image_pruning import PruningOperations
    from gateway.operations.images import ImageOperations
    from gateway.operations.receiving import Receiver
    from gateway.operations.renaming import RenameOperations
    from gateway.operations.run import RunOperations
    from gateway.operations.user_removal import UserRemoval
    from gateway.operations.versions import VersionOperations


class SiteParts(Protocol):
    """What acts are made from; each part is made on first use."""

    @property
    def authority(self) -> "Authority": ...
    @property
    def channels(self) -> Channels: ...
    @property
    def database(self) -> Database: ...
    @property
    def doctor_sources(self) -> "Sources": ...
    @property
    def drains(self) -> DrainTable: ...
    @property
    def engine(self) -> "Engine": ...
    @property
    def environments(self) -> EnvironmentLifecycle: ...
    @property
    def gate(self) -> Gate: ...
    @property
    def head_signer(self) -> "HeadSigner": ...
    @property
    def image_builder(self) -> "ImageBuilder": ...
    @property
    def image_store(self) -> "ImageStore": ...
    @property
    def image_table(self) -> ImageTable: ...
    @property
    def lease_table(self) -> LeaseTable: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def live_sessions(self) -> LiveSessionTable: ...
    @property
    def policy(self) -> PolicyInForce: ...
    @property
    def quarantines(self) -> Quarantines: ...
    @property
    def reconciler(self) -> Reconciler: ...
    @property
    def recorded(self) -> Recorded: ...
    @property
    def runs_here(self) -> bool: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def table(self) -> EnvironmentTable: ...
    @property
    def throttle(self) -> "Throttle": ...
    @property
    def users(self) -> Users: ...
    @property
    def waiting(self) -> Waiting: ...

    def contradictions(self) -> tuple[Discrepancy, ...]:
        """Return where the store and the journal contradict each other."""


class Administration:
    """Every act, made on first use and shared afterwards."""

    def __init__(self, site: SiteParts) -> None:
        self._site = site

    @cached_property
    def environments(self) -> EnvironmentOperations:
        parts = EnvironmentParts(
            users=self._site.users,
            table=self._site.table,
            lifecycle=self._site.environments,
            engine=lambda: self._site.engine,
            waiting=self._site.waiting,
            reap=lambda ref: self._site.reconciler.reap(ref),  # noqa: PLW0108 - the engine is asked for when it is needed
            uid_start=self._site.settings.environments.uid_start,
            images=self._site.channels,
        )
        return EnvironmentOperations(parts, self._site.gate, self.keys, self._site.recorded)

    @cached_property
    def users(self) -> UserOperations:
        uid_start = self._site.settings.environments.uid_start
        return UserOperations(self._site.users, self.keys, self._site.recorded, uid_start)

    @cached_property
    def names(self) -> "RenameOperations":
        from gateway.environments.relocation import Relocation
        from gateway.operations.renaming import RenameOperations

        lifecycle = self._site.environments
        relocation = Relocation(self._site.settings.state_dir, self._site.table, lifecycle.locks, lifecycle.disks)
        return RenameOperations(self._site.database, relocation, self._site.recorded)

    @cached_property
    def removal(self) -> "UserRemoval":
        from gateway.operations.user_removal import RemovalParts, UserRemoval

        parts = RemovalParts(
            self._site.users,
            self._site.table,
            self.users,
            lambda: self.environments,
            self.keys,
            self._site.environments,
            self._site.settings.state_dir,
        )
        return UserRemoval(parts, self._site.recorded)

    @cached_property
    def departures(self) -> "DepartureOperations":
        from gateway.operations.departure import DepartureOperations, DepartureParts

        site = self._site
        parts = DepartureParts(
            settings=site.settings,
            database=site.database,
            lifecycle=site.environments,
            environment_operations=lambda: self.environments,
            policy=site.policy,
            is_connected=lambda user: bool(site.live_sessions.all(user)),
            runs_here=site.runs_here,
        )
        return DepartureOperations(parts, site.recorded)

    @cached_property
    def arrivals(self) -> "ArrivalOperations":
        from gateway.operations.arrival import ArrivalOperations, ArrivalParts

        site = self._site
        parts = ArrivalParts(
            settings=site.settings,
            database=site.database,
            lifecycle=site.environments,
            images=site.channels,
            gate=site.gate,
            policy=site.policy,
            receiver=self._receiver,
            engine_name=lambda: site.engine.name,
            runs_here=site.runs_here,
        )
        return ArrivalOperations(parts, site.recorded)

    def _receiver(self) -> "Receiver":
        import os

        from gateway.operations.receiving import HereReceiver, InsideReceiver

        site = self._site
        if site.runs_here:
            return HereReceiver(site.environments, is_root=os.geteuid() == 0)
        return InsideReceiver(site.environments, lambda: site.authority.user_ca_key, site.recorded.actor)

    @cached_property
    def keys(self) -> KeyOperations:
        return KeyOperations(self._site.users, self._site.recorded)

    @cached_property
    def gpus(self) -> GpuOperations:
        extension = LeaseExtension(self._site.lease_table, self._site.leases)
        return GpuOperations(self._site.table, extension, self._site.quarantines, self._site.recorded)

    @cached_property
    def nodes(self) -> NodeOperations:
        return NodeOperations(
            lambda: self._site.engine,
            self._site.environments,
            self._site.leases,
            self._site.drains,
            self._site.recorded,
        )

    @cached_property
    def sessions(self) -> SessionOperations:
        return SessionOperations(self._site.live_sessions, self._site.recorded)

    @cached_property
    def host_keys(self) -> "HostKeyOperations":
        from gateway.operations.host_keys import HostKeyOperations

        return HostKeyOperations(self._site.authority, self._site.recorded)

    @cached_property
    def bans(self) -> "BanOperations":
        from gateway.operations.bans import BanOperations

        return BanOperations(self._site.throttle, self._site.recorded)

    @cached_property
    def images(self) -> "ImageOperations":
        from gateway.operations.images import ImageOperations

        site = self._site
        return ImageOperations(
            lambda: site.image_builder, lambda: site.image_store, site.channels, site.image_table, site.recorded
        )

    @cached_property
    def channels(self) -> "ChannelOperations":
        from gateway.operations.channels import ChannelOperations, ChannelParts

        site, chosen = self._site, self._site.settings.environments
        parts = ChannelParts(
            site.channels,
            site.image_table,
            site.table,
            self.environments,
            lambda: site.image_store,
            chosen.late_warning,
        )
        return ChannelOperations(parts, site.recorded)

    @cached_property
    def pruning(self) -> "PruningOperations":
        from gateway.operations.image_pruning import PruningOperations

        site = self._site
        return PruningOperations(
            site.channels,
            site.image_table,
            site.table,
            site.image_store,
            site.settings.environments.image,
            site.recorded,
        )

    @cached_property
    def image_contents(self) -> "ImageContents":
        from gateway.operations.image_contents import ImageContents

        return ImageContents(self._site.channels, self._site.image_store, self._site.settings.state_dir / "images")

    @cached_property
    def backups(self) -> "BackupOperations":
        from gateway.operations.backup import BackupOperations, BackupParts

        site = self._site
        parts = BackupParts(
            lambda: site.head_signer, lambda: site.recorded, site.contradictions, site.environments.files.mount_disks
        )
        return BackupOperations(site.settings, parts)

    @cached_property
    def versions(self) -> "VersionOperations":
        from gateway.operations.versions import VersionOperations

        return VersionOperations(self._site.settings, self._site.database, self._site.recorded)

    @cached_property
    def runs(self) -> "RunOperations":
        from gateway.operations.run import RunOperations, RunParts

        start = partial(self.environments.start, wait=True)
        parts = RunParts(self._site.table, self._site.environments, start, lambda: self._site.authority.user_ca_key)
        return RunOperations(parts, self._site.gate, self._site.recorded)

    @cached_property
    def diagnoses(self) -> "DiagnoseOperations":
        from gateway.operations.diagnose import DiagnoseOperations

        return DiagnoseOperations(self._site.doctor_sources, lambda: self._site.recorded)
