"""The composition root: the only place that joins the rooms. Built lazily: a command pays for what it uses."""

import hashlib
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from gateway.config import Settings, load_settings
from gateway.disk import BALLAST_BYTES, Ballast
from gateway.engines.choice import EngineChoice
from gateway.environments.disks import Disks
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.lifecycle_settings import LifecycleSettings
from gateway.environments.locks import SharedLocks
from gateway.environments.open_hosts import OpenHosts
from gateway.environments.reconcile import Reconciler
from gateway.environments.rounds import Records, Rounds
from gateway.environments.shared_volumes import SharedByPolicy, SharedVolumes
from gateway.environments.warning_schedule import WarningSchedule
from gateway.gate import Gate
from gateway.gpus.activity import Activity, NoActivity, NvmlActivity
from gateway.gpus.deciders import Deciders
from gateway.gpus.inventory import Inventory, inventory_of
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.node_inventory import NodeInventory, out_of_reach
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.sensors import Measuring, NoSensors, NvmlSensors
from gateway.gpus.waiting import Waiting, WaitingLine
from gateway.images.channels import Channels
from gateway.model import Egress, EnvironmentRef, GpuUuid, UserName
from gateway.operations.administration import Administration
from gateway.operations.administrator import administrator
from gateway.operations.recorded import Recorded
from gateway.policy import PolicyInForce, policy_file
from gateway.process.ownership import Liveness, is_alive
from gateway.store.database import Database
from gateway.store.drains import DrainTable
from gateway.store.environments import EnvironmentTable
from gateway.store.images import ImageTable
from gateway.store.leases import LeaseTable
from gateway.store.notices import NoticeTable
from gateway.store.queue import QueueTable
from gateway.store.serving import ServingTable
from gateway.store.sessions import LiveSessionTable
from gateway.store.usage import UsageTable
from gateway.store.users import Users

if TYPE_CHECKING:
    from gateway.audit.event_budget import EventBudget
    from gateway.audit.head_key import HeadKey
    from gateway.audit.head_signing import HeadSigner
    from gateway.audit.journal import Journal
    from gateway.audit.store_comparison import Discrepancy
    from gateway.auth.authority import Authority
    from gateway.auth.shared_throttle import SharedThrottle
    from gateway.background.duties import Duties
    from gateway.doctor.doctor import Sources
    from gateway.engines.diagnostics import EngineDiagnostics
    from gateway.engines.image_builder import ImageBuilder
    from gateway.engines.image_store import ImageStore
    from gateway.engines.interface import Engine, Image
    from gateway.process.egress_child import EgressChild
    from gateway.process.page_child import PageChild


class App:
    """One gateway's parts, made on first use and shared afterwards."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.database, self.ballast.give_up)

    @cached_property
    def users(self) -> Users:
        return Users(self.database)

    @cached_property
    def table(self) -> EnvironmentTable:
        return EnvironmentTable(self.database)

    @cached_property
    def live_sessions(self) -> LiveSessionTable:
        if self.liveness is None:
            return LiveSessionTable(self.database, is_alive)
        return LiveSessionTable(self.database, self.liveness.is_alive, self.liveness.is_forgotten)

    @cached_property
    def serving(self) -> ServingTable:
        return ServingTable(self.database)

    @cached_property
    def liveness(self) -> Liveness | None:
        """Which processes of the site's gateways serve; None where there is one gateway."""
        instance = self.settings.instance
        return Liveness(instance, self.serving) if instance else None

    @cached_property
    def lease_table(self) -> LeaseTable:
        return LeaseTable(self.database)

    @cached_property
    def engine_choice(self) -> EngineChoice:
        return EngineChoice(self.settings, self.gateway_id)

    @property
    def runs_here(self) -> bool:
        """Whether environments run on this host, which has their files then."""
        return self.engine_choice.runs_here

    @cached_property
    def engine(self) -> "Engine":
        return self.engine_choice.engine()

    @cached_property
    def engine_diagnostics(self) -> "EngineDiagnostics":
        return self.engine_choice.diagnostics()

    @cached_property
    def image_builder(self) -> "ImageBuilder":
        return self.engine_choice.image_builder()

    @cached_property
    def image_store(self) -> "ImageStore":
        return self.engine_choice.image_store()

    @cached_property
    def image_table(self) -> ImageTable:
        return ImageTable(self.database)

    @cached_property
    def channels(self) -> Channels:
        find = lambda reference: self.engine.image(reference)  # noqa: E731, PLW0108 - the engine is asked for when it is needed
        return Channels(self.image_table, find, lambda: self.image_store)

    @cached_property
    def gateway_id(self) -> str:
        """What marks this gateway's environments in an engine that several gateways may share."""
        made = hashlib.sha256(str(self.settings.state_dir.resolve()).encode()).hexdigest()[:12]
        return self.settings.site.id or made

    @cached_property
    def authority(self) -> "Authority":
        from gateway.auth.authority import Authority

        return Authority(self.settings.keys_dir)

    @cached_property
    def journal(self) -> "Journal":
        from gateway.audit.journal import Journal

        return Journal(self.settings.journal_dir)

    @cached_property
    def ballast(self) -> Ballast:
        """Room for administrators on a full disk."""
        return Ballast(self.settings.own_dir / "reserve", BALLAST_BYTES)

    @cached_property
    def event_budget(self) -> "EventBudget":
        """The journal as those who come through SSH fill it."""
        from gateway.audit.event_budget import EventBudget

        return EventBudget(self.journal, self.settings.audit.user_event_rate)

    @cached_property
    def head_key(self) -> "HeadKey":
        """What signs the journal's heads."""
        from gateway.audit.head_key import HeadKey

        settings = self.settings
        return HeadKey(settings.keys_dir, settings.instance, settings.own_dir if settings.instance else None)

    @cached_property
    def head_signer(self) -> "HeadSigner":
        from gateway.audit.head_signing import HeadSigner

        signer = partial(self.head_key.ensure, self.settings.journal_name)
        return HeadSigner(self.settings.journal_dir, signer, self.settings.last_head_file)

    @cached_property
    def policy(self) -> PolicyInForce:
        return PolicyInForce(policy_file(self.settings))

    @cached_property
    def gate(self) -> Gate:
        return Gate(self.policy.decide, self.event_budget, self.event_budget)

    # GPUs

    @property
    def deciders(self) -> Deciders:
        """Who decides about GPUs."""
        return Deciders.of(self.engine_choice.scheduling)

    def _out_of_reach(self) -> Mapping[GpuUuid, str]:
        return out_of_reach(self.engine.nodes()) if self.deciders.engine_places else {}

    @cached_property
    def inventory(self) -> Inventory:
        if self.deciders.engine_places:
            return NodeInventory(lambda: self.engine.nodes())  # noqa: PLW0108 - it is asked for when it is needed
        return inventory_of(self.settings.gpus.inventory, self.settings.gpus.cdi_spec_dirs)

    @cached_property
    def sensors(self) -> Measuring:
        return NoSensors() if self.settings.gpus.inventory == "none" else NvmlSensors()

    @cached_property
    def activity(self) -> Activity:
        return NvmlActivity() if self.settings.gpus.inventory in {"auto", "nvml"} else NoActivity()

    @cached_property
    def usage_table(self) -> UsageTable:
        return UsageTable(self.database)

    @cached_property
    def queue_table(self) -> QueueTable:
        return QueueTable(self.database)

    @cached_property
    def leases(self) -> Leases:
        line = WaitingLine(self.queue_table, self.lease_table)
        around = Surroundings(
            self._in_containers,
            self.activity,
            line,
            lambda user: self.policy.allowance(user).lease_seconds,
            self._out_of_reach,
        )
        return Leases(self.lease_table, self.inventory, around=around)

    @cached_property
    def waiting(self) -> Waiting:
        return Waiting(self.queue_table, self.lease_table, self.leases)

    @cached_property
    def quarantines(self) -> Quarantines:
        return Quarantines(self.lease_table, self.inventory)

    def _in_containers(self) -> dict[GpuUuid, EnvironmentRef]:
        return {gpu: observed.ref for observed in self.engine.observe_all() for gpu in observed.gpus}

    # Environments

    @cached_property
    def environments(self) -> EnvironmentLifecycle:
        chosen = self.settings.environments
        settings = LifecycleSettings.of(
            self.settings,
            ca_line=lambda: self.authority.user_ca_line(),  # noqa: PLW0108 - the authority is made when a start needs it
            open_hosts=self.open_hosts,
            shared=SharedByPolicy(SharedVolumes(self.settings.state_dir, chosen.uid_start), self.policy, self.gate),
            drained=lambda: {node: drain.reason for node, drain in self.drains.all().items()},
            image_of=self.image_of,
            shared_locks=SharedLocks(self.database.lock) if self.database.has_locks else None,
            disks=self.disks,
        )
        return EnvironmentLifecycle(self.table, self.users, lambda: self.engine, self.leases, settings, self.journal)

    def image_of(self, user: UserName, reference: str) -> "Image":
        """Return what an environment is started from now."""
        found = self.channels.choose(reference)
        self.policy.refuse_denied_image(user, reference, found.digest)
        return found

    @cached_property
    def disks(self) -> Disks:
        """The disks of environments; an engine's daemon must see what is mounted."""
        return Disks.of(self.settings, self.database, self.engine_choice)

    def open_hosts(self, user: UserName, egress: Egress) -> OpenHosts:
        """Return what an environment is told of hosts outside."""
        chosen = self.settings.egress
        hosts = [str(target) for target in self.policy.allowance(user).egress_hosts]
        return OpenHosts(hosts, chosen.port, chosen.contact, has_network=egress != Egress.NONE)

    @cached_property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.table, self.lease_table, self.engine, self.environments)

    @cached_property
    def rounds(self) -> Rounds:
        chosen = self.settings.environments
        return Rounds(
            Records(self.table, self.lease_table, NoticeTable(self.database)),
            self.environments,
            self.activity,
            self.policy.allowance,
            WarningSchedule(chosen.early_warning, chosen.late_warning, chosen.stop_grace, chosen.save_time),
            drains=self.drains.all,
        )

    @cached_property
    def drains(self) -> DrainTable:
        return DrainTable(self.database)

    # What an administrator may do

    @cached_property
    def recorded(self) -> Recorded:
        return Recorded(self.journal, administrator(), self.ballast.give_up)

    @cached_property
    def throttle(self) -> "SharedThrottle":
        from gateway.auth.shared_throttle import SharedThrottle

        return SharedThrottle(self.settings, self.database)

    @property
    def doctor_sources(self) -> "Sources":
        """Whom the doctor asks here."""
        from gateway.operations.diagnose import Held, Inside, sources_of

        return sources_of(
            self.settings,
            lambda: self.engine_diagnostics,
            self.sensors,
            self.policy,
            Held(self.database, self.lease_table, self.table, self.drains, lambda: self.engine.nodes(), self.disks),  # noqa: PLW0108 - it is asked for when it is needed
            Inside(self.environments, lambda: self.authority.user_ca_key),
        )

    @cached_property
    def administration(self) -> Administration:
        return Administration(self)

    # What runs by itself

    @cached_property
    def duties(self) -> "Duties":
        from gateway.background.duties import Duties

        return Duties(self)

    @cached_property
    def egress_child(self) -> "EgressChild":
        from gateway.process.egress_child import EgressChild

        return EgressChild(self.settings, self.policy)

    @cached_property
    def page_child(self) -> "PageChild":
        from gateway.process.page_child import PageChild

        return PageChild(self.settings, self.policy)

    def contradictions(self) -> "tuple[Discrepancy, ...]":
        """Return where the store and the journal contradict each other. Raises: DevgwError, OSError, ValueError."""
        from gateway.background.journal_maintenance import contradictions

        return contradictions(self.users, self.settings.all_journals)

    def with_server(self, **changed: object) -> "App":
        """Return parts of its own for a process that has just begun, under other settings of the server."""
        server = self.settings.server.model_copy(update=changed)
        return App(self.settings.model_copy(update={"server": server}))
