"""What runs by itself beside the SSH server, joined from the parts of a site: each duty is made when it is needed."""

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from gateway.background.disk_reserve import DiskReserve
from gateway.background.environment_monitor import EnvironmentMonitor, HeldGpus, Notify
from gateway.background.journal_maintenance import HeadPlan, JournalMaintenance, sinks_of
from gateway.background.leadership import Leadership
from gateway.background.policy_reload import PolicyArchive, PolicyReloader
from gateway.background.sampling import Sampling
from gateway.background.terminal_lines import TerminalLines
from gateway.background.watchdog import Watchdog
from gateway.config import Settings
from gateway.disk import Ballast
from gateway.duties import DutyBoard
from gateway.environments.disk_warnings import DiskWarnings
from gateway.environments.disks import Disks
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.load_sampler import LoadSampler
from gateway.environments.reconcile import Reconciler
from gateway.environments.rounds import Rounds
from gateway.gpus.inventory import Inventory
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.sampler import Sampler, holders_of
from gateway.gpus.sensors import Measuring
from gateway.model import EnvironmentState
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.load import LoadTable
from gateway.store.preallocation import preallocate
from gateway.store.queue import QueueTable
from gateway.store.sessions import LiveSessionTable
from gateway.store.terminal_lines import TerminalLineTable
from gateway.store.usage import UsageTable
from gateway.store.users import Users

if TYPE_CHECKING:
    from gateway.audit.head_signing import HeadSigner
    from gateway.audit.journal import Journal
    from gateway.audit.store_comparison import Discrepancy
    from gateway.auth.shared_throttle import SharedThrottle
    from gateway.background.metrics_publishing import MetricsPublishing
    from gateway.doctor.doctor import Sources as DoctorSources
    from gateway.engines.interface import Engine

_LOAD_SECONDS = 60.0
_LOAD_KEPT_SECONDS = 8 * 86400.0


class DutyParts(Protocol):
    """What duties are made from; each part is made on first use."""

    @property
    def ballast(self) -> Ballast: ...
    @property
    def database(self) -> Database: ...
    @property
    def disks(self) -> Disks: ...
    @property
    def doctor_sources(self) -> "DoctorSources": ...
    @property
    def engine(self) -> "Engine": ...
    @property
    def environments(self) -> EnvironmentLifecycle: ...
    @property
    def head_signer(self) -> "HeadSigner": ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def journal(self) -> "Journal": ...
    @property
    def lease_table(self) -> LeaseTable: ...
    @property
    def live_sessions(self) -> LiveSessionTable: ...
    @property
    def policy(self) -> PolicyInForce: ...
    @property
    def quarantines(self) -> Quarantines: ...
    @property
    def queue_table(self) -> QueueTable: ...
    @property
    def reconciler(self) -> Reconciler: ...
    @property
    def rounds(self) -> Rounds: ...
    @property
    def sensors(self) -> Measuring: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def table(self) -> EnvironmentTable: ...
    @property
    def throttle(self) -> "SharedThrottle": ...
    @property
    def usage_table(self) -> UsageTable: ...
    @property
    def users(self) -> Users: ...

    def contradictions(self) -> "tuple[Discrepancy, ...]":
        """Return where the store and the journal contradict each other."""


class Duties:
    """Every duty, made on first use and shared afterwards."""

    def __init__(self, site: DutyParts) -> None:
        self._site = site

    @cached_property
    def leadership(self) -> Leadership:
        """Which gateway of the site does what must be done once."""
        database = self._site.database
        return Leadership(database.lock("leader") if database.has_locks else None)

    @cached_property
    def watchdog(self) -> Watchdog:
        return Watchdog(DutyBoard(self._site.settings.duties_file))

    @cached_property
    def disk_reserve(self) -> DiskReserve:
        return DiskReserve(self._site.ballast, lambda: preallocate(self._site.database), self._site.journal)

    @cached_property
    def environment_monitor(self) -> EnvironmentMonitor:
        site = self._site
        held = lambda: {lease.gpu for lease in site.lease_table.held()}  # noqa: E731 - one line of joining
        gpus = HeldGpus(held, site.inventory.read, site.settings.gpus.start_wait)
        # the engine is asked for when a round needs it: one that is away must not keep the gateway from starting
        rounds = (lambda: site.rounds, lambda: self.disk_warnings)
        return EnvironmentMonitor(lambda: site.reconciler, rounds, gpus, site.quarantines, site.journal, self.watchdog)

    @cached_property
    def disk_warnings(self) -> DiskWarnings:
        site = self._site
        place, contact = site.settings.state_dir, site.settings.egress.contact
        return DiskWarnings(
            place, site.table, site.disks.uses, lambda: site.engine, site.environments.files.owner, contact
        )

    @cached_property
    def policy_reloader(self) -> PolicyReloader:
        settings = self._site.settings
        server, archive = settings.server, PolicyArchive(settings.journal_dir, settings.policies_dir)
        port, has_peers = server.notebook_port, lambda: server.workers > 1
        return PolicyReloader(self._site.policy, archive, self._site.journal, notebook_port=port, has_peers=has_peers)

    @cached_property
    def journal_maintenance(self) -> JournalMaintenance:
        site, audit = self._site, self._site.settings.audit
        plan = HeadPlan(site.head_signer, sinks_of(audit, site.settings.timestamps_file), audit.head_interval)
        return JournalMaintenance(site.journal, plan, site.contradictions, retention_seconds=audit.retention)

    @cached_property
    def gpu_sampling(self) -> Sampling:
        """How busy leased GPUs are."""
        site, chosen = self._site, self._site.settings.gpus
        held = lambda: holders_of(site.lease_table.held())  # noqa: E731 - one line of joining
        sampler = Sampler(site.sensors, held, site.usage_table, chosen.sample_interval)
        every, keep = chosen.sample_interval, chosen.keep_samples
        return Sampling("GPUs", sampler, site.usage_table, interval_seconds=every, keep_seconds=keep)

    @cached_property
    def load_sampling(self) -> Sampling:
        """What environments use of processors and memory."""
        site, samples = self._site, LoadTable(self._site.database)
        running = lambda: (one.ref for one in site.table.all() if one.state is EnvironmentState.RUNNING)  # noqa: E731 - one line of joining
        sampler = LoadSampler(running, site.environments.load, samples, _LOAD_SECONDS)
        every, keep = _LOAD_SECONDS, _LOAD_KEPT_SECONDS
        return Sampling("environments' load", sampler, samples, interval_seconds=every, keep_seconds=keep)

    def terminal_lines(self, notify: Notify) -> TerminalLines | None:
        """Return what carries lines between gateways; None where there is one."""
        site = self._site
        return TerminalLines(TerminalLineTable(site.database), notify) if site.settings.instance else None

    def start_sampling(self) -> None:
        """Begin to measure."""
        self.gpu_sampling.start()
        self.load_sampling.start()

    def stop_sampling(self) -> None:
        """Begin no other look."""
        self.gpu_sampling.stop()
        self.load_sampling.stop()

    @cached_property
    def metrics_publishing(self) -> "MetricsPublishing":
        from gateway.background.site_metrics import MetricsSite, SiteMetrics
        from gateway.metrics.collection import Tables

        site = self._site
        tables = Tables(
            site.users, site.table, site.live_sessions, site.lease_table, site.queue_table, site.usage_table
        )
        bans = lambda: len(site.throttle.bans())  # noqa: E731 - one line of joining
        observed = lambda: site.engine.observe_all()  # noqa: E731, PLW0108 - the engine is asked for when it is needed
        parts = MetricsSite(
            site.settings, tables, site.journal, site.disks, site.inventory, site.sensors, bans, site.doctor_sources,
            observed,
        )  # fmt: skip
        return SiteMetrics(parts).publishing(self.watchdog)
