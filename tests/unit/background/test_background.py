"""What runs by itself, each part with what it needs and no App."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.background.access_watch import AccessWatch, GrantNotice
from gateway.background.environment_monitor import EnvironmentMonitor, HeldGpus, Notify
from gateway.background.expiry import GrantExpiry
from gateway.background.policy_reload import PolicyArchive, PolicyReloader
from gateway.background.sampling import Sampling
from gateway.background.watchdog import Watchdog
from gateway.environments.finding import Finding
from gateway.errors import ConfigError, EngineError
from gateway.gate import Decide
from gateway.gpus.reading import Reading
from gateway.model import EnvironmentRef, Gpu, GpuUuid
from gateway.policy import PolicyInForce
from policies.load import parse_policy
from policies.requests import Subject
from tests.fakes.recorder import MemoryRecorder

ALICE = EnvironmentRef.parse("alice")
GPU = GpuUuid("GPU-00000000-0000-4000-8000-000000000000")
POLICY = 'version = 1\ndefault_roles = ["member"]\n[roles.member]\nsessions = ["shell"]\n'


class Looks:
    """A reconciler and rounds that find what they are told, or fail."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.rounds = 0

    def run(self) -> Iterator[Finding]:
        yield from self._found("environment.adopted")

    def tidy(self) -> Iterator[Finding]:
        yield from self._found("environment.stopped")

    def walk(self, tell: Notify) -> Iterator[Finding]:
        self.rounds += 1
        tell(ALICE, "a line")
        yield from self._found("environment.warned")

    def add_after_xid(self, index: int, xid: int) -> Iterable[GpuUuid]:
        return [GPU] if (index, xid) == (0, 79) else []

    def _found(self, code: str) -> Iterator[Finding]:
        if self.error:
            raise self.error
        yield Finding(code, ALICE, "as the test says")


def monitor(
    looks: Looks, journal: MemoryRecorder, held: set[GpuUuid], shown: list[list[GpuUuid]]
) -> EnvironmentMonitor:
    """A monitor over GPUs that appear one reading after the other."""

    def read() -> Reading:
        now = shown.pop(0) if len(shown) > 1 else shown[0]
        return Reading("nvml", tuple(Gpu(uuid, "NVIDIA A100", 1, "0") for uuid in now))

    gpus = HeldGpus(held=lambda: held, read=read, wait_seconds=0.0 if len(shown) == 1 else 30.0)
    return EnvironmentMonitor(lambda: looks, (lambda: looks,), gpus, looks, journal, Watchdog())


def test_what_is_found_is_journaled_and_lines_are_handed_on() -> None:
    looks, journal = Looks(), MemoryRecorder()
    watching = monitor(looks, journal, set(), [[]])
    watching.settle()
    assert watching.go_round(tidies=True) == [(ALICE, "a line")]
    assert journal.codes() == ["environment.adopted", "environment.warned", "environment.stopped"]


@pytest.mark.parametrize(
    "error", [EngineError("engine.unreachable", "it is away"), RecursionError("deep"), OSError(5, "io")]
)
def test_no_failure_of_one_look_ends_the_next(error: Exception) -> None:
    """Whatever it is: the lines said before it are handed on, and the next round comes."""
    looks, journal = Looks(), MemoryRecorder()
    watching = monitor(looks, journal, set(), [[]])
    looks.error = error
    watching.settle()
    assert watching.go_round(tidies=True) == [(ALICE, "a line")]
    looks.error = None
    watching.go_round(tidies=False)
    assert journal.codes() == ["environment.warned"]


def test_a_gpu_that_stays_away_is_journaled_and_a_late_one_is_waited_for() -> None:
    journal = MemoryRecorder()
    monitor(Looks(), journal, {GPU}, [[]]).settle()
    assert [event.detail for event in journal.events if event.code == "gpu.lost"] == [{"gpu": GPU}]
    late = HeldGpus(held=lambda: {GPU}, read=iter([Reading("nvml", ()), _reading(GPU)]).__next__, wait_seconds=30)
    pauses: list[float] = []
    assert late.missing(pauses.append) == []
    assert len(pauses) == 1


def _reading(uuid: GpuUuid) -> Reading:
    return Reading("nvml", (Gpu(uuid, "NVIDIA A100", 1, "0"),))


def test_a_critical_error_of_a_gpu_is_journaled_and_another_is_not() -> None:
    journal = MemoryRecorder()
    watching = monitor(Looks(), journal, set(), [[]])
    watching.quarantine(0, 13)
    watching.quarantine(0, 79)
    assert [(event.code, event.reason) for event in journal.events] == [("gpu.quarantined", "critical error Xid 79")]


class Sampled:
    """A sampler and its table; the first look fails."""

    def __init__(self) -> None:
        self.looks, self.forgotten, self.enough = 0, list[datetime](), threading.Event()

    def look(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise OSError(5, "no answer")
        self.enough.set()

    def forget(self, before: datetime) -> None:
        self.forgotten.append(before)


def test_what_is_measured_is_measured_again_after_a_failure_and_old_samples_go_once_an_hour() -> None:
    sampled = Sampled()
    sampling = Sampling("GPUs", sampled, sampled, interval_seconds=0.01, keep_seconds=60)
    sampling.start()
    assert sampled.enough.wait(10)
    sampling.stop()
    now = datetime.now(UTC)
    fresh = Sampling("GPUs", sampled, sampled, interval_seconds=1, keep_seconds=60)
    sampled.forgotten.clear()
    for after in (0, 10, 3599, 3600):
        fresh.look(now + timedelta(seconds=after))
    assert sampled.forgotten == [now - timedelta(seconds=60), now + timedelta(seconds=3540)]


class Connected:
    """Nobody is connected; rechecks are counted, and the first may fail."""

    def __init__(self) -> None:
        self.rechecks, self.fails = 0, False

    def subjects(self) -> list[Subject]:
        return []

    async def recheck(self, _decide: Decide) -> list[str]:
        self.rechecks += 1
        if self.fails:
            self.fails = False
            raise OSError(5, "io")
        return []

    async def end_killed(self) -> None:
        """Nobody is to be ended."""


def watch(tmp_path: Path, journal: MemoryRecorder, connected: Connected, revisions: list[int]) -> AccessWatch:
    (tmp_path / "policy.toml").write_text(POLICY)
    policy = PolicyInForce(tmp_path / "policy.toml")
    archive = PolicyArchive(tmp_path / "journal", tmp_path / "policies")
    reloader = PolicyReloader(policy, archive, journal, notebook_port=8888)
    reloader.begin()
    read = lambda: revisions.pop(0) if len(revisions) > 1 else revisions[0]  # noqa: E731 - a clock of its own
    grants = GrantNotice(journal, datetime.now(UTC))
    return AccessWatch(read, policy, reloader, connected, connected, grants)  # type: ignore[arg-type]


def test_live_sessions_are_rechecked_when_anything_changed_and_not_otherwise(tmp_path: Path) -> None:
    """The store, or the policy's file; a recheck that failed is made again."""
    journal, connected = MemoryRecorder(), Connected()
    watching = watch(tmp_path, journal, connected, [1, 1, 2])
    asyncio.run(watching.look())
    assert connected.rechecks == 0
    asyncio.run(watching.look())
    assert connected.rechecks == 1
    (tmp_path / "policy.new").write_text(POLICY.replace('"shell"', '"shell", "exec"'))
    (tmp_path / "policy.new").rename(tmp_path / "policy.toml")
    connected.fails = True
    with pytest.raises(OSError, match="io"):
        asyncio.run(watching.look())
    asyncio.run(watching.look())
    assert connected.rechecks == 3
    asyncio.run(watching.look())
    assert connected.rechecks == 3
    assert journal.codes() == ["policy.loaded", "policy.loaded"]


def test_a_policy_that_means_another_notebook_port_is_refused(tmp_path: Path) -> None:
    """At the start for good, at a reload with a record."""
    journal = MemoryRecorder()
    (tmp_path / "policy.toml").write_text(f"notebook_port = 9999\n{POLICY}")
    policy = PolicyInForce(tmp_path / "policy.toml")
    reloader = PolicyReloader(policy, PolicyArchive(tmp_path, tmp_path / "policies"), journal, notebook_port=8888)
    with pytest.raises(ConfigError, match="notebook_port"):
        reloader.begin()
    assert not reloader.reload()
    assert journal.codes() == ["policy.refused"]


def test_the_end_of_a_users_last_grant_is_said_once() -> None:
    """Also one that came while the gateway was away; not of a user who has another grant."""
    policy = parse_policy(
        POLICY
        + """
[[grants]]
users = ["alice", "bob"]
roles = ["member"]
until = 2026-05-04T12:00:00Z
[[grants]]
users = ["bob"]
roles = ["member"]
""",
        "policy.toml",
    )
    end = datetime(2026, 5, 4, 12, tzinfo=UTC)
    watching = GrantExpiry(end - timedelta(days=1))
    assert watching.ended(policy, end - timedelta(seconds=1)) == []
    assert [user for user, _rule, _end in watching.ended(policy, end)] == ["alice"]
    assert watching.ended(policy, end + timedelta(days=1)) == []
    assert GrantExpiry(end + timedelta(seconds=1)).ended(policy, end + timedelta(days=1)) == []
