"""Rounds through running environments, on the fake engine with a clock of the test's own."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.events import finding_of
from gateway.environments.finding import Finding
from gateway.environments.rounds import Records, Rounds
from gateway.environments.warning_schedule import WarningSchedule
from gateway.gpus.leases import Leases, Surroundings
from gateway.model import EnvironmentRef, EnvironmentState, GpuUuid
from gateway.store.notices import NoticeTable
from policies.limits import Allowance
from tests.unit.environments.test_lifecycle import ALICE, GPU, OneGpu, Site

HOUR = timedelta(hours=1)


class Load:
    """How busy the GPU is, as a test says."""

    def __init__(self) -> None:
        self.percent: dict[GpuUuid, int] = {}

    def processes(self, _uuids: object) -> dict[GpuUuid, tuple[int, ...]]:
        return {}

    def utilisation(self, _uuids: object) -> dict[GpuUuid, int]:
        return self.percent


class Watched:
    """Alice's environment, a clock, and what her terminals show."""

    def __init__(self, site: Site, allowance: Allowance) -> None:
        self.site = site
        self.now = datetime.now(UTC)
        self.allowance = allowance
        self.load = Load()
        self.said: list[str] = []
        around = Surroundings(length_seconds=lambda _user: allowance.lease_seconds)
        site.environments.leases._leases = Leases(site.leases, OneGpu(), lambda: self.now, around)
        site.create()
        self.new_gateway()

    def new_gateway(self) -> None:
        """Make the rounds of a process that knows only what is stored."""
        self.notices = NoticeTable(self.site.table._database)
        records = Records(self.site.table, self.site.leases, self.notices)
        self.rounds = Rounds(
            records,
            self.site.environments,
            self.load,
            lambda _user: self.allowance,
            WarningSchedule(),
            lambda: self.now,
        )

    def go(self, after: timedelta = timedelta(0)) -> list[Finding]:
        """Let time pass, then go round once."""
        self.now += after
        return list(self.rounds.walk(self._tell))

    def report(self, cpu_percent: float = 0, busy_kernels: int = 0, gpu_error: str = "", refused: int = 0) -> None:
        """Let the environment report of itself."""
        place = self.site.root / "environments" / "alice" / "main" / "run" / "status.json"
        document = {
            "cpu_percent": cpu_percent,
            "busy_kernels": busy_kernels,
            "gpu_error": gpu_error,
            "refused_logins": refused,
            "refused_at": self.now.timestamp() if refused else 0.0,
        }
        place.write_text(json.dumps({"version": 1, "at": self.now.timestamp(), **document}))
        if os.geteuid() == 0:
            uid = self.site.users.require("alice").uid
            os.chown(place, uid, uid)

    @property
    def state(self) -> EnvironmentState:
        return self.site.table.require(ALICE).state

    @property
    def notice(self) -> dict[str, object] | None:
        """What the environment is told."""
        place = self.site.root / "environments" / "alice" / "main" / "config" / "notice.json"
        return json.loads(place.read_text()) if place.exists() else None

    def _tell(self, ref: EnvironmentRef, line: str) -> None:
        assert ref == ALICE
        self.said.append(line)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    made = Site(tmp_path, database_url)
    yield made
    made.engine.close()


def test_a_lease_ends_with_two_warnings_a_grace_and_time_to_save(site: Site) -> None:
    """Each is said once to every terminal, and the environment is told when to save; then the GPU is free."""
    alice = Watched(site, Allowance(lease_seconds=4 * 3600))
    assert alice.go(3 * HOUR) == []
    assert [finding.code for finding in alice.go(HOUR / 2)] == ["environment.warned"]
    assert alice.go() == []
    assert alice.notice == {"version": 1, "reason": alice.said[0], "stop_at": pytest.approx(1, abs=1e12), "save": False}
    alice.go(timedelta(minutes=25))
    alice.go(timedelta(minutes=5))
    alice.go(timedelta(minutes=5))
    assert alice.notice["save"] is True
    assert ["in 36 min" in alice.said[0], "in 11 min" in alice.said[1], "in 6 min" in alice.said[2]] == [True] * 3
    assert "stops now" in alice.said[3]
    assert alice.state is EnvironmentState.RUNNING
    assert [finding.code for finding in alice.go(timedelta(minutes=1))] == ["lease.expired"]
    assert (alice.state, site.held()) == (EnvironmentState.STOPPED, {})


def test_a_lease_ends_also_where_its_gpu_is_busy_but_never_silently(site: Site) -> None:
    """Work does not extend a lease; it is told and asked to save."""
    alice = Watched(site, Allowance(lease_seconds=3600, idle_stop_seconds=600))
    alice.load.percent = {GPU: 100}
    for _minute in range(70):
        alice.go(timedelta(minutes=1))
    assert len(alice.said) == 4
    assert alice.state is EnvironmentState.STOPPED


def test_an_extension_takes_the_warning_back(site: Site) -> None:
    """And the new end is announced in its turn."""
    alice = Watched(site, Allowance(lease_seconds=3600))
    alice.go(timedelta(minutes=56))
    assert len(alice.said) == 1
    site.leases.set_end(ALICE, alice.now + 2 * HOUR)
    assert alice.go(timedelta(minutes=20)) == []
    assert alice.notice is None
    alice.go(timedelta(minutes=80))
    assert len(alice.said) == 2


def test_a_gateway_that_was_away_warns_before_it_stops_anything(site: Site) -> None:
    """The lease ended hours ago: the first thing users get is the warning, and its whole time."""
    alice = Watched(site, Allowance(lease_seconds=3600))
    alice.now += 9 * HOUR
    alice.new_gateway()
    assert [finding.code for finding in alice.go()] == ["environment.warned"]
    alice.new_gateway()
    assert alice.go(timedelta(minutes=4)) == []
    assert alice.state is EnvironmentState.RUNNING


@pytest.mark.parametrize(
    "use", [{"cpu_percent": 40.0}, {"busy_kernels": 1}, {"gpu": 3}], ids=["processes", "kernel", "gpu"]
)
def test_an_environment_at_work_is_not_idle(site: Site, use: dict[str, float]) -> None:
    """Nobody is connected, and still nothing is taken."""
    alice = Watched(site, Allowance(idle_stop_seconds=3600))
    for _round in range(20):
        alice.now += timedelta(minutes=10)
        if "gpu" in use:
            alice.load.percent = {GPU: int(use["gpu"])}
        else:
            alice.report(**use)
        assert alice.go() == []
    assert alice.state is EnvironmentState.RUNNING


def test_an_idle_environment_is_warned_and_stopped_and_its_files_stay(site: Site) -> None:
    """An open connection is no use; the report of an idle environment is none either."""
    alice = Watched(site, Allowance(idle_stop_seconds=3600))
    codes = []
    for _minute in range(70):
        alice.now += timedelta(minutes=1)
        alice.report(cpu_percent=0.4)
        codes += [finding.code for finding in alice.go()]
    assert codes == ["environment.warned"] * 4 + ["environment.stopped"]
    assert "nobody uses it" in alice.said[0]
    assert (alice.state, site.held()) == (EnvironmentState.STOPPED, {})
    assert (site.root / "volumes" / "alice" / "main" / "home").is_dir()


def test_use_after_a_warning_keeps_an_idle_environment(site: Site) -> None:
    """The end moves, the notice goes."""
    alice = Watched(site, Allowance(idle_stop_seconds=3600))
    alice.go(timedelta(minutes=56))
    alice.report(cpu_percent=90)
    alice.go()
    alice.go(timedelta(minutes=20))
    assert alice.notice is None
    assert alice.state is EnvironmentState.RUNNING


def test_a_report_that_is_old_or_forged_is_no_use(site: Site, tmp_path: Path) -> None:
    """A link, a FIFO, somebody else's numbers: the report is left out, and nothing waits for it."""
    alice = Watched(site, Allowance(idle_stop_seconds=3600))
    place = site.root / "environments" / "alice" / "main" / "run" / "status.json"
    alice.report(cpu_percent=100)
    alice.go(timedelta(minutes=30))
    assert alice.notices.get(ALICE).active_at is None
    place.unlink()
    os.mkfifo(place)
    alice.go()
    place.unlink()
    (tmp_path / "elsewhere").write_text(json.dumps({"at": alice.now.timestamp(), "cpu_percent": 100}))
    place.symlink_to(tmp_path / "elsewhere")
    alice.go()
    assert alice.notices.get(ALICE).active_at is None


def test_an_environment_that_lost_its_gpu_is_made_anew_with_its_files_and_gpu(site: Site) -> None:
    """`Failed to initialize NVML`: journaled, told, a new container, the same GPU and home; not again at once."""
    alice = Watched(site, Allowance())
    note = site.root / "volumes" / "alice" / "main" / "home" / "note"
    note.write_text("precious")
    old = next(iter(site.daemon.containers.values()))
    alice.report(gpu_error="Failed to initialize NVML: Unknown Error")
    findings = alice.go()
    assert [finding.code for finding in findings] == ["gpu.lost", "environment.healed"]
    assert findings[1].detail == "made anew with the same GPUs and the same files"
    assert "made anew" in alice.said[0]
    new = next(iter(site.daemon.containers.values()))
    assert (new is not old, new.running, new.spec.gpus, site.held()) == (True, True, (GPU,), {GPU: ALICE})
    assert note.read_text() == "precious"
    alice.report(gpu_error="Failed to initialize NVML: Unknown Error")
    assert alice.go() == []


def test_wrong_notebook_passwords_are_found_once_with_their_number(site: Site) -> None:
    """Also after a new start of the environment, which counts from nothing; what an old gateway saw is not news."""
    alice = Watched(site, Allowance())

    def refused(count: int) -> list[str]:
        alice.report(refused=count)
        found = alice.go(timedelta(seconds=15))
        return [finding.detail.partition(";")[0] for finding in found if finding.code == "notebook.refused"]

    assert refused(0) == []
    assert refused(2) == ["2 wrong notebook passwords"]
    assert refused(2) == []
    assert refused(3) == ["1 wrong notebook password"]
    assert refused(1) == ["1 wrong notebook password"]
    alice.now += timedelta(hours=1)
    alice.new_gateway()
    alice.now -= timedelta(hours=1)
    assert refused(1) == []


def test_a_lost_gpu_keeps_no_lease_from_ending(site: Site) -> None:
    """What cannot be healed again yet is warned and stopped as any other, so that the GPU comes back."""
    alice = Watched(site, Allowance(lease_seconds=3600))
    alice.report(gpu_error="NVML: no such GPU")
    assert [finding.code for finding in alice.go()] == ["gpu.lost", "environment.healed"]
    alice.now = datetime.now(UTC) + timedelta(hours=2)
    for _ in range(8):
        alice.report(gpu_error="NVML: no such GPU")
        alice.go(timedelta(minutes=5))
    assert alice.state is EnvironmentState.STOPPED


def test_a_restart_that_was_asked_for_is_warned_of_and_then_made_from_the_image_of_that_moment(site: Site):
    """The GPU stays held throughout; the journal gets the digest, and nothing is asked for any more."""
    watched = Watched(site, Allowance())
    before = site.table.require(ALICE).image_digest
    site.table.set_restart(ALICE, watched.now + timedelta(minutes=5))
    assert [finding.code for finding in watched.go()] == ["environment.warned"]
    assert "another image" in watched.said[-1]
    site.daemon.images["image"] = replace(site.daemon.images["image"], digest=f"sha256:{'9' * 64}")
    found = [finding for _ in range(24) for finding in watched.go(timedelta(minutes=1))]
    [started] = [finding for finding in found if finding.code == "environment.started"]
    assert started.started is not None
    event = finding_of(started.code, str(started.ref), started.detail, started.started)
    assert event.detail == {"image": "image", "digest": f"sha256:{'9' * 64}", "datasets": ""}
    row = site.table.require(ALICE)
    assert (row.state, row.restart_at, row.gpus) == (EnvironmentState.RUNNING, None, (GPU,))
    assert row.image_digest == event.detail["digest"] != before


def test_a_restart_that_is_called_off_is_taken_back(site: Site):
    """The notice in the environment goes, and nothing happens."""
    watched = Watched(site, Allowance())
    site.table.set_restart(ALICE, watched.now)
    watched.go()
    assert _notices(site) != []
    site.table.set_restart(ALICE, None)
    assert watched.go(HOUR) == []
    assert _notices(site) == []


def _notices(site: Site) -> list[Path]:
    return list((site.root / "environments" / "alice" / "main").rglob("*notice*"))
