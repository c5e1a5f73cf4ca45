"""Create is all or nothing, on every engine: what it refuses, what it leaves, what it builds on."""

import threading
from dataclasses import replace

import pytest

from gateway.errors import ConflictError, DevgwError, EngineError, NotFoundError
from gateway.model import EnvironmentRef, Limits, Mount
from tests.contract.subject import MIB, UID, EngineUnderTest

ALICE = EnvironmentRef.parse("alice")


def running(subject: EngineUnderTest, ref: EnvironmentRef = ALICE) -> bool:
    observed = subject.engine.observe(ref)
    return observed is not None and observed.running


def test_a_second_create_is_a_conflict_and_leaves_the_first_alone(subject: EngineUnderTest) -> None:
    """Invariant 13: nobody's session ends because somebody typed `create` twice."""
    subject.engine.create(subject.spec())
    subject.engine.start(ALICE)
    with pytest.raises(ConflictError) as refusal:
        subject.engine.create(subject.spec(egress=subject.egress))
    assert refusal.value.code == "environment.exists"
    assert running(subject)


def test_two_creates_at_once_make_one_environment(subject: EngineUnderTest) -> None:
    """The one that comes second is told so, and takes nothing from the first."""
    spec = subject.spec(egress=subject.egress)
    outcomes: list[str] = []
    gate = threading.Barrier(2)

    def create() -> None:
        gate.wait()
        try:
            subject.engine.create(spec)
            outcomes.append("made")
        except DevgwError as exc:
            outcomes.append(exc.code)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["environment.exists", "made"]
    subject.engine.start(ALICE)
    assert running(subject)


def test_an_unknown_image_is_not_found_and_nothing_is_left(subject: EngineUnderTest) -> None:
    """At create, or at start where the nodes fetch images only then."""
    with pytest.raises(NotFoundError) as refusal:
        create_and_start(subject, "no-such-image:ever")
    assert refusal.value.code == "image.not-found"
    assert "devgw image" in refusal.value.hint
    if not subject.has_local_images:
        assert not running(subject)
        subject.engine.delete(ALICE)
    assert subject.engine.observe_all() == []


def create_and_start(subject: EngineUnderTest, image: str) -> None:
    subject.engine.create(subject.spec(image=image, egress=subject.egress))
    if not subject.has_local_images:
        subject.engine.start(ALICE)


def test_a_missing_mount_source_is_refused_and_not_made(subject: EngineUnderTest) -> None:
    """An engine that makes it would leave a directory owned by root in someone's home."""
    missing = subject.directory / "missing"
    spec = subject.spec(egress=subject.egress)
    with pytest.raises(EngineError) as refusal:
        subject.engine.create(replace(spec, mounts=(*spec.mounts, Mount(missing, "/data"))))
    assert refusal.value.code == "mount.missing"
    assert not missing.exists()
    assert subject.engine.observe_all() == []


@pytest.mark.parametrize("name", ["NVIDIA_VISIBLE_DEVICES", "nvidia_disable_require", "LD_PRELOAD", "A=B", ""])
def test_a_variable_that_chooses_devices_or_code_is_refused(subject: EngineUnderTest, name: str) -> None:
    """Neither a user nor a mistake can ask for a GPU that was not leased."""
    with pytest.raises(EngineError) as refusal:
        subject.engine.create(subject.spec(variables={name: "all"}))
    assert refusal.value.code == "variable.reserved"
    assert subject.engine.observe_all() == []


def test_a_user_whom_the_engine_cannot_keep_is_refused(subject: EngineUnderTest) -> None:
    """They would not own their files inside; an engine with root, or none of its own, keeps everybody."""
    spec = subject.spec(uid=UID + 1)
    if not subject.keeps_one_user:
        subject.engine.create(spec)
        assert subject.engine.observe(ALICE).uid == UID + 1
        return
    with pytest.raises(EngineError) as refusal:
        subject.engine.create(spec)
    assert refusal.value.code == ("engine.failed" if subject.name == "bubblewrap" else "engine.maps-users")
    assert subject.engine.observe_all() == []


def test_a_create_that_fails_late_leaves_nothing(subject: EngineUnderTest) -> None:
    """The engine refuses only once the network is made; the name can be used again."""
    too_much = Limits(memory_bytes=128 * MIB, cpus=100_000.0, pids=64, shm_bytes=MIB)
    with pytest.raises(EngineError):
        subject.engine.create(subject.spec(limits=too_much, egress=subject.egress))
    assert subject.engine.observe_all() == []
    subject.engine.create(subject.spec(egress=subject.egress))
    assert subject.engine.observe(ALICE) is not None


def test_what_a_killed_create_left_is_witnessed_and_deleted(subject: EngineUnderTest) -> None:
    """Reconcile finds it after a restart."""
    subject.interrupt_create(subject.spec(egress=subject.egress))
    observed = subject.engine.observe(ALICE)
    assert observed.partial
    assert not observed.running
    assert subject.engine.observe_all() == [observed]
    subject.engine.delete(ALICE)
    assert subject.engine.observe_all() == []


def test_create_builds_on_what_a_killed_create_left(subject: EngineUnderTest) -> None:
    """The administrator types the same command again and it works."""
    spec = subject.spec(egress=subject.egress)
    subject.interrupt_create(spec)
    subject.engine.create(spec)
    subject.engine.start(ALICE)
    assert running(subject)
    assert not subject.engine.observe(ALICE).partial
