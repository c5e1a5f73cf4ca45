"""The rounds the gateway makes through running environments: who uses them, what ails them, when they must end.

It warns, waits, asks for a checkpoint, stops; and makes an environment anew whose GPU is lost. Terminals are reached
through the `tell` it is given; see `warning_schedule` for when it warns.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.environments.finding import Finding
from gateway.environments.lifecycle import EnvironmentLifecycle
from gateway.environments.refusals import Refusals
from gateway.environments.status import Status
from gateway.environments.troubles import Troubles
from gateway.environments.warning_schedule import (
    Cause,
    Ending,
    Phase,
    WarningSchedule,
    announcement,
    ending_of,
    phase_at,
    stop_time,
)
from gateway.errors import DevgwError
from gateway.gpus.activity import Activity
from gateway.model import Environment, EnvironmentRef, EnvironmentState, GpuUuid, NodeName, UserName
from gateway.store.drains import Drain
from gateway.store.environments import EnvironmentTable
from gateway.store.leases import LeaseTable
from gateway.store.notices import NoticeState, NoticeTable
from policies.limits import Allowance

Tell = Callable[[EnvironmentRef, str], None]
_BUSY_CPU_PERCENT = 5.0
_HEAL_AGAIN = timedelta(minutes=10)
_ANNOUNCED = (Phase.EARLY, Phase.LATE, Phase.GRACE, Phase.SAVE)


@dataclass(frozen=True, slots=True)
class Records:
    """The tables a round reads and writes."""

    environments: EnvironmentTable
    leases: LeaseTable
    notice: NoticeTable


@dataclass(frozen=True, slots=True)
class Outlook:
    """When and why an environment would stop; both None for one that may run on for ever."""

    active_at: datetime
    activity: str
    ending: Ending | None
    stop_at: datetime | None


class Rounds:
    """One round after the other; each looks at every running environment."""

    def __init__(
        self,
        records: Records,
        environments: EnvironmentLifecycle,
        activity: Activity,
        allowance: Callable[[UserName], Allowance],
        schedule: WarningSchedule,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        drains: Callable[[], Mapping[NodeName, Drain]] = dict,
    ) -> None:
        self._drains = drains
        self._told: dict[EnvironmentRef, datetime] = {}
        self._ends_of_drains: Mapping[EnvironmentRef, datetime] = {}
        self._records = records
        self._environments = environments
        self._activity = activity
        self._allowance = allowance
        self._schedule = schedule
        self._now = now
        self._refusals = Refusals(now())
        self._troubles = Troubles(records.environments, "looking after it", now)

    def walk(self, tell: Tell) -> Iterator[Finding]:
        """Look at each running environment; yield what must be journaled. A failure of one costs no other its turn."""
        running = [one for one in self._records.environments.all() if one.state is EnvironmentState.RUNNING]
        gpus = [gpu for environment in running for gpu in environment.gpus]
        load = self._activity.utilisation(gpus) if gpus else {}
        ends, unknown = self._lease_ends(), self._environments.unreachable()
        drained = self._drained()
        for environment in running:
            if environment.ref in unknown:  # idle, at its end or ailing: nobody can tell, and nothing may be done
                continue
            if not self._troubles.is_due(environment.ref):
                continue
            try:
                yield from self._tell_of_drain(environment.ref, drained.get(environment.ref), tell)
                yield from self._visit(environment, load, ends, tell)
            except Exception as exc:  # noqa: BLE001 - what users write can fail in any way
                yield self._troubles.note(environment.ref, exc)
            else:
                self._troubles.end(environment)

    def _drained(self) -> Mapping[EnvironmentRef, Drain]:
        """Return the environments on nodes that are being emptied; the engine is asked only where there are any."""
        drains = self._drains()
        self._ends_of_drains = {}
        if not drains:
            return {}
        found = {
            ref: drains[node] for ref, node in self._environments.nodes_of_environments().items() if node in drains
        }
        self._ends_of_drains = {ref: drain.stop_at for ref, drain in found.items() if drain.stop_at is not None}
        return found

    def _tell_of_drain(self, ref: EnvironmentRef, drain: Drain | None, tell: Tell) -> Iterator[Finding]:
        """Say once that the node is being emptied."""
        if drain is None:
            self._told.pop(ref, None)
        elif self._told.get(ref) != drain.since:
            self._told[ref] = drain.since
            until = f"until {drain.stop_at:%Y-%m-%d %H:%M} UTC" if drain.stop_at else "until you stop it"
            line = f"node {drain.node} is being drained ({drain.reason}): your environment stays there {until}"
            tell(ref, line)
            yield Finding("environment.warned", ref, line)

    def outlook(self, environment: Environment) -> Outlook:
        """Say when and why an environment would stop."""
        self._drained()
        notice = self._records.notice.get(environment.ref)
        ending = self._ending(environment, notice, self._lease_ends())
        warned_at = notice.warned_at if ending and notice.said_of == ending.at else None
        stop_at = stop_time(ending, warned_at, self._schedule, self._now()) if ending else None
        return Outlook(_active_at(environment, notice), _last_use(environment, notice), ending, stop_at)

    def _visit(
        self,
        environment: Environment,
        load: Mapping[GpuUuid, int],
        ends: Mapping[EnvironmentRef, datetime | None],
        tell: Tell,
    ) -> Iterator[Finding]:
        ref, now = environment.ref, self._now()
        status = self._environments.status(ref, now)
        notice = self._records.notice.get(ref)
        if status is not None:
            yield from self._refusals.news(ref, status)
        if status is not None and status.gpu_error and environment.gpus and _may_heal(notice, now):
            yield from self._heal(environment, status.gpu_error, tell)
            return
        use = _use(environment, load, status)
        if use and not _is_past_saving(notice):
            self._records.notice.note_activity(ref, now, use)
            notice = self._records.notice.get(ref)
        ending = self._ending(environment, notice, ends)
        if ending is None:
            self._withdraw(ref, notice)
            return
        yield from self._approach(ref, ending, notice, tell)

    def _approach(self, ref: EnvironmentRef, ending: Ending, notice: NoticeState, tell: Tell) -> Iterator[Finding]:
        """Announce a phase that was not announced yet of this end; stop where it has come."""
        now = self._now()
        if notice.said_of != ending.at:
            notice = self._withdraw(ref, notice)
        phase = phase_at(ending, notice.warned_at, self._schedule, now)
        if phase is Phase.STOP and ending.cause == "image":
            yield from self._restart(ref, ending, notice)
        elif phase is Phase.STOP:
            self._environments.stop(ref)
            self._records.notice.forget(ref)
            code = "lease.expired" if ending.cause == "lease" else "environment.stopped"
            yield Finding(code, ref, _because(ending, notice))
        elif phase in _ANNOUNCED and phase.value != notice.said:
            warned_at = notice.warned_at or now
            stop_at = stop_time(ending, warned_at, self._schedule, now)
            line = announcement(phase, ending, stop_at, now)
            tell(ref, line)
            self._environments.files.tell(ref, line, stop_at, save=phase is Phase.SAVE)
            self._records.notice.note_said(ref, phase.value, ending.at, warned_at)
            yield Finding("environment.warned", ref, line)

    def _withdraw(self, ref: EnvironmentRef, notice: NoticeState) -> NoticeState:
        """Take back what was announced of an end that does not come."""
        if not notice.said:
            return notice
        self._environments.files.withdraw(ref)
        self._records.notice.note_said(ref, "", None, None)
        return self._records.notice.get(ref)

    def _restart(self, ref: EnvironmentRef, ending: Ending, notice: NoticeState) -> Iterator[Finding]:
        """Start an environment anew, from its image as that is now."""
        self._records.notice.forget(ref)
        try:
            started = self._environments.recreate(ref)
        except DevgwError as exc:
            yield Finding("environment.failed", ref, exc.message)
        else:
            yield Finding.of_start("environment.started", started, f"made anew: {_because(ending, notice)}")

    def _heal(self, environment: Environment, error: str, tell: Tell) -> Iterator[Finding]:
        """Make an environment anew whose GPU is lost inside."""
        ref, now = environment.ref, self._now()
        self._records.notice.note_healed(ref, now)
        yield Finding("gpu.lost", ref, error)
        tell(ref, f"your environment lost its GPU ({error}) and is made anew; your files stay")
        try:
            healed = self._environments.recreate(ref)
        except DevgwError as exc:
            yield Finding("environment.failed", ref, exc.message)
        else:
            which = "the same GPUs" if set(healed.gpus) == set(environment.gpus) else "other GPUs"
            yield Finding.of_start("environment.healed", healed, f"made anew with {which} and the same files")

    def _ending(
        self, environment: Environment, notice: NoticeState, ends: Mapping[EnvironmentRef, datetime | None]
    ) -> Ending | None:
        allowance = self._allowance(environment.ref.user)
        return ending_of(
            self._lease_end(environment, allowance, ends),
            _active_at(environment, notice),
            allowance.idle_stop_seconds,
            self._ends_of_drains.get(environment.ref),
            environment.restart_at,
        )

    def _lease_end(
        self, environment: Environment, allowance: Allowance, ends: Mapping[EnvironmentRef, datetime | None]
    ) -> datetime | None:
        """Return the end that devgw keeps; where the engine ends leases, devgw must not."""
        if self._environments.leases.deciders.engine_ends:
            return None
        return ends.get(environment.ref) or self._given_end(environment, allowance)

    def _given_end(self, environment: Environment, allowance: Allowance) -> datetime | None:
        """Give a lease an end that has none although the policy wants one: adopted, or older than the policy."""
        if not environment.gpus or allowance.lease_seconds is None:
            return None
        end = self._now() + timedelta(seconds=allowance.lease_seconds)
        self._records.leases.set_end(environment.ref, end)
        return end

    def _lease_ends(self) -> dict[EnvironmentRef, datetime | None]:
        return {lease.ref: lease.ends_at for lease in self._records.leases.held()}


def _use(environment: Environment, load: Mapping[GpuUuid, int], status: Status | None) -> str:
    """Say by what it is in use now; an open connection is no use, the bytes on it are (`last_active_at`)."""
    if any(load.get(gpu, 0) > 0 for gpu in environment.gpus):
        return "GPU in use"
    if status is not None and status.busy_kernels > 0:
        return "notebook cell running"
    if status is not None and status.cpu_percent >= _BUSY_CPU_PERCENT:
        return "processes at work"
    return ""


def _active_at(environment: Environment, notice: NoticeState) -> datetime:
    seen = (environment.created_at, environment.last_active_at, notice.active_at)
    return max(moment for moment in seen if moment is not None)


def _last_use(environment: Environment, notice: NoticeState) -> str:
    if notice.active_at is not None and notice.active_at == _active_at(environment, notice):
        return notice.activity
    return "SSH or a start" if environment.last_active_at else "created"


def _is_past_saving(notice: NoticeState) -> bool:
    """Say whether it has been asked to save: the work this makes is no new use."""
    return notice.said == Phase.SAVE.value


def _because(ending: Ending, notice: NoticeState) -> str:
    told = f"first told at {notice.warned_at:%Y-%m-%d %H:%M} UTC" if notice.warned_at else "not told"
    causes: dict[Cause, str] = {
        "lease": "its GPU lease ended",
        "idle": "nobody used it",
        "drain": "its node was drained",
        "image": "its restart with another image came due",
    }
    return f"{causes[ending.cause]} at {ending.at:%Y-%m-%d %H:%M} UTC; {told}"


def _may_heal(notice: NoticeState, now: datetime) -> bool:
    """Say whether making it anew may help: not again and again. Its lease ends like any other meanwhile."""
    return notice.healed_at is None or now - notice.healed_at >= _HEAL_AGAIN
