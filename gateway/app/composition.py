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
from gateway.environments.lifecycle import EnvironmentLifecycle, LifecycleSettings
from gateway.environments.reconcile import Reconciler
from gateway.environments.rounds import Records, Rounds
from gateway.environments.warning_schedule import WarningSchedule
from gateway.errors import EngineError
from gateway.gate import Gate
from gateway.gpus.activity import Activity, NoActivity, NvmlActivity
from gateway.gpus.inventory import Inventory, inventory_of
from gateway.gpus.lease_extension import LeaseExtension
from gateway.gpus.leases import Leases, Surroundings
from gateway.gpus.quarantine import Quarantines
from gateway.gpus.sampler import Sampler, holders_of
from gateway.gpus.sensors import Measuring, NoSensors, NvmlSensors
from gateway.gpus.usage import Grouping, Period, Span, Usage, account
from gateway.gpus.waiting import Waiting, WaitingLine
from gateway.model import Actor, EnvironmentRef, GpuUuid, UserName
from gateway.operations.environments import Administration
from gateway.policy import PolicyInForce
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.notices import NoticeTable
from gateway.store.queue import QueueTable
from gateway.store.sessions import LiveSessionTable, Owner
from gateway.store.usage import UsageTable
from gateway.store.users import Users
from policies.limits import Allowance, datasets_of, limits_of

if TYPE_CHECKING:
    from gateway.audit.head_key import HeadKey
    from gateway.audit.journal import Journal
    from gateway.auth.authority import Authority
    from gateway.doctor.doctor import Doctor
    from gateway.engines.bubblewrap.software import PreparedRoots
    from gateway.engines.diagnostics import EngineDiagnostics
    from gateway.engines.image_builder import ImageBuilder
    from gateway.engines.interface import Engine
    from gateway.operations.run import RunnerOperations


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
    def live_sessions(self) -> LiveSessionTable:
        return LiveSessionTable(self.database, _is_alive)

    @cached_property
    def process(self) -> Owner:
        """This process, as the owner of live sessions."""
        from gateway.engines.bubblewrap.process import Process

        own = Process.own()
        return Owner(own.pid, own.started, own.boot)

    @cached_property
    def lease_table(self) -> LeaseTable:
        return LeaseTable(self.database)

    @cached_property
    def engine(self) -> "Engine":
        """The engine the settings name; `auto` takes Docker when it answers, else bubblewrap."""
        from gateway.engines.docker.engine import DockerEngine

        if self.engine_kind == "docker":
            return DockerEngine(self.docker_url, gateway_id=self.gateway_id)
        from gateway.engines.bubblewrap.engine import BubblewrapEngine

        directory = self.settings.state_dir / "sandboxes"
        return BubblewrapEngine(directory, self.gateway_id, self.prepared_roots, self.settings.gpus.cdi_spec_dirs)

    @cached_property
    def engine_diagnostics(self) -> "EngineDiagnostics":
        """What `devgw doctor` asks of the engine."""
        if self.engine_kind == "docker":
            from gateway.engines.docker.diagnostics import DockerDiagnostics

            return DockerDiagnostics(self.docker_url, gateway_id=self.gateway_id)
        from gateway.engines.bubblewrap.diagnostics import BubblewrapDiagnostics
        from gateway.engines.bubblewrap.engine import BubblewrapEngine

        engine = self.engine
        assert isinstance(engine, BubblewrapEngine)  # noqa: S101 - tells the type checker what `engine` has chosen
        return BubblewrapDiagnostics(engine, self.gateway_id, self.settings.gpus.cdi_spec_dirs)

    @cached_property
    def image_builder(self) -> "ImageBuilder":
        if self.engine_kind == "docker":
            from gateway.engines.docker.image_build import connect_builder

            return connect_builder(self.docker_url)
        from gateway.engines.bubblewrap.engine import find_bwrap
        from gateway.engines.bubblewrap.image_build import BubblewrapImageBuilder

        return BubblewrapImageBuilder(self.prepared_roots, find_bwrap()[0])

    @cached_property
    def engine_kind(self) -> str:
        """The engine's name: the one set, or with `auto` what this host has."""
        wanted = self.settings.engine.kind
        if wanted != "auto":
            return wanted
        from gateway.engines.docker.engine import DockerEngine

        try:
            DockerEngine(self.docker_url, gateway_id=self.gateway_id).report()
        except EngineError:
            return "bubblewrap"
        return "docker"

    @property
    def prepared_roots(self) -> "PreparedRoots":
        """Where bubblewrap's images lie."""
        from gateway.engines.bubblewrap.software import PreparedRoots

        return PreparedRoots(Path(self.settings.engine.roots_dir or self.settings.state_dir / "roots"))

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
    def sensors(self) -> Measuring:
        return NoSensors() if self.settings.gpus.inventory == "none" else NvmlSensors()

    @cached_property
    def usage_table(self) -> UsageTable:
        return UsageTable(self.database)

    @cached_property
    def sampler(self) -> Sampler:
        interval = self.settings.gpus.sample_interval
        return Sampler(self.sensors, lambda: holders_of(self.lease_table.held()), self.usage_table, interval)

    def account(self, period: Period, by: Grouping) -> list[Usage]:
        """Count GPU-hours of a period, for `devgw usage`."""
        past = [Span(one.gpu, one.ref, one.leased_at, one.ended_at) for one in self.lease_table.past(period.since)]
        held = [Span(one.gpu, one.ref, one.leased_at) for one in self.lease_table.held()]
        return account([*past, *held], self.usage_table.between(period.since, period.until), period, by)

    @cached_property
    def doctor(self) -> "Doctor":
        from gateway.operations.diagnose import doctor_of

        return doctor_of(self)

    @cached_property
    def runner(self) -> "RunnerOperations":
        from gateway.operations.run import RunnerOperations

        return RunnerOperations(self, administrator())

    @cached_property
    def leases(self) -> Leases:
        return Leases(self.lease_table, self.inventory, around=self._around_leases)

    @cached_property
    def _around_leases(self) -> Surroundings:
        return Surroundings(self._in_containers, self.activity, self.line, self._lease_seconds)

    @cached_property
    def waiting(self) -> Waiting:
        return Waiting(self.queue_table, self.lease_table, self.leases)

    @cached_property
    def activity(self) -> Activity:
        return NvmlActivity() if self.settings.gpus.inventory in {"auto", "nvml"} else NoActivity()

    @cached_property
    def quarantines(self) -> Quarantines:
        return Quarantines(self.lease_table, self.inventory)

    @cached_property
    def queue_table(self) -> QueueTable:
        return QueueTable(self.database)

    @cached_property
    def line(self) -> WaitingLine:
        return WaitingLine(self.queue_table, self.lease_table)

    def _lease_seconds(self, user: UserName) -> int | None:
        return self.allowance(user).lease_seconds

    def _in_containers(self) -> dict[GpuUuid, EnvironmentRef]:
        return {gpu: observed.ref for observed in self.engine.observe_all() for gpu in observed.gpus}

    @cached_property
    def environments(self) -> EnvironmentLifecycle:
        settings = LifecycleSettings(
            state_dir=self.settings.state_dir,
            datasets={name: dataset.path for name, dataset in self.settings.datasets.items()},
            ca_line=lambda: self.authority.user_ca_line(),  # noqa: PLW0108 - the authority is made when a start needs it
            read_only_root=self.settings.environments.read_only_root,
            start_timeout=self.settings.environments.start_timeout,
            stop_timeout=self.settings.environments.stop_timeout,
        )
        return EnvironmentLifecycle(self.table, self.users, lambda: self.engine, self.leases, settings)

    @cached_property
    def administration(self) -> Administration:
        return Administration(
            users=self.users,
            table=self.table,
            live_sessions=self.live_sessions,
            environments=self.environments,
            engine=lambda: self.engine,
            gate=self.gate,
            recorder=self.journal,
            actor=administrator(),
            uid_start=self.settings.environments.uid_start,
            waiting=self.waiting,
            quarantines=self.quarantines,
            extension=LeaseExtension(self.lease_table, self.leases),
            reap=lambda ref: self.reconciler.reap(ref),  # noqa: PLW0108 - the engine is asked for when it is needed
        )

    @cached_property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.table, self.lease_table, self.engine, self.environments)

    @cached_property
    def rounds(self) -> Rounds:
        return Rounds(
            Records(self.table, self.lease_table, self.notice),
            self.environments,
            self.activity,
            self.allowance,
            warning_schedule_of(self.settings),
        )

    @cached_property
    def notice(self) -> NoticeTable:
        return NoticeTable(self.database)

    def with_server(self, **changed: object) -> "App":
        """Return parts of its own for a process that has just begun, under other settings of the server."""
        server = self.settings.server.model_copy(update=changed)
        return App(self.settings.model_copy(update={"server": server}))

    def serve(self) -> int:
        """Run the gateway until it is told to stop; return the exit code."""
        from gateway.app.serve import serve, serve_with_workers

        if self.settings.server.workers > 1:
            return serve_with_workers(self)
        serve(self)
        return 0


def warning_schedule_of(settings: Settings) -> WarningSchedule:
    """Return the times between warning and stop."""
    chosen = settings.environments
    return WarningSchedule(chosen.early_warning, chosen.late_warning, chosen.stop_grace, chosen.save_time)


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


def _is_alive(owner: Owner) -> bool:
    from gateway.engines.bubblewrap.process import Process

    return Process(owner.pid, owner.started, owner.boot).is_alive()


def _account_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser() if "USER" in os.environ else f"uid-{os.getuid()}"
