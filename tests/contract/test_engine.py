"""The promises of engines/interface.py, which every engine keeps, the fake one included."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.digest import digest_of
from gateway.engines.interface import IMAGE_LABEL_PREFIX
from gateway.errors import EngineError, NotFoundError
from gateway.model import EnvironmentRef, GpuUuid, Mount
from tests.contract.inside import wait_until
from tests.contract.subject import UID, EngineUnderTest

ALICE = EnvironmentRef.parse("alice")
NO_SUCH_GPU = GpuUuid("GPU-ffffffff-ffff-4fff-8fff-ffffffffffff")


def running(subject: EngineUnderTest, ref: EnvironmentRef = ALICE) -> bool:
    observed = subject.engine.observe(ref)
    return observed is not None and observed.running


def test_report_names_the_engine_and_how_gpus_get_in(subject: EngineUnderTest) -> None:
    """An administrator reads it in `devgw doctor`."""
    report = subject.engine.report()
    assert (report.name, bool(report.version)) == (subject.engine.name, True)
    assert report.gpu_injection in {"cdi", "runtime-hook", "none"}


def test_create_makes_the_environment_without_starting_it(subject: EngineUnderTest) -> None:
    """Start is a step of its own."""
    subject.engine.create(subject.spec())
    observed = subject.engine.observe(ALICE)
    assert not observed.running
    assert observed.exit_code is None
    assert not observed.partial


def test_witness_repeats_the_spec(subject: EngineUnderTest) -> None:
    """What the engine remembers is enough to adopt an environment when the store is lost."""
    gpus = (subject.gpu,) if subject.gpu else ()
    spec = subject.spec("alice+proj", gpus=gpus)
    subject.engine.create(spec)
    observed = subject.engine.observe(spec.ref)
    assert (observed.ref, observed.image, observed.uid, observed.gpus) == (spec.ref, subject.image, UID, gpus)
    assert observed.spec_digest == digest_of(spec)


def test_create_tells_its_progress(subject: EngineUnderTest) -> None:
    """Someone waits in front of a terminal."""
    lines: list[str] = []
    subject.engine.create(subject.spec(), lines.append)
    assert lines


def test_start_of_a_half_made_environment_is_not_found(subject: EngineUnderTest) -> None:
    subject.interrupt_create(subject.spec(egress=subject.egress))
    with pytest.raises(NotFoundError):
        subject.engine.start(ALICE)


def test_start_twice_starts_once(subject: EngineUnderTest) -> None:
    """The second start finds it running and changes nothing."""
    subject.engine.create(subject.spec())
    subject.engine.start(ALICE)
    wait_until(lambda: "ready" in subject.engine.logs(ALICE), "the entrypoint wrote its first line")
    subject.engine.start(ALICE)
    assert running(subject)
    assert subject.engine.logs(ALICE).count("probe is ready") == 1


def test_stop_then_start_runs_again(subject: EngineUnderTest) -> None:
    subject.engine.create(subject.spec(egress=subject.egress))
    subject.engine.start(ALICE)
    subject.engine.stop(ALICE, 10)
    assert not running(subject)
    subject.engine.start(ALICE)
    assert running(subject)


def test_stop_of_a_stopped_or_absent_environment_changes_nothing(subject: EngineUnderTest) -> None:
    subject.engine.stop(ALICE, 1)
    subject.engine.create(subject.spec())
    subject.engine.stop(ALICE, 1)
    assert subject.engine.observe(ALICE).exit_code is None


def test_delete_removes_a_running_environment_for_good(subject: EngineUnderTest) -> None:
    """The name is free again, at once, and the user's files are where they were."""
    kept = subject.run_directory(ALICE) / "kept"
    kept.write_text("data")
    subject.engine.create(subject.spec(egress=subject.egress))
    subject.engine.start(ALICE)
    subject.engine.delete(ALICE)
    assert subject.engine.observe(ALICE) is None
    assert kept.read_text() == "data"
    subject.engine.create(subject.spec(egress=subject.egress))


def test_delete_of_an_absent_environment_changes_nothing(subject: EngineUnderTest) -> None:
    subject.engine.delete(ALICE)
    assert subject.engine.observe_all() == []


@pytest.mark.parametrize("ask", ["start", "logs"])
def test_an_absent_environment_is_not_found(subject: EngineUnderTest, ask: str) -> None:
    with pytest.raises(NotFoundError) as refusal:
        getattr(subject.engine, ask)(ALICE)
    assert refusal.value.code == "environment.not-found"
    assert "alice" in refusal.value.message


def test_witnesses_are_all_of_this_gateways_and_nothing_else(subject: EngineUnderTest) -> None:
    """Two gateways share an engine; names that look alike stay apart."""
    handles = ["a", "a-b", "a+b", "a-b+c", "a+b-c"]
    for handle in handles:
        subject.engine.create(subject.spec(handle))
    assert sorted(str(observed.ref) for observed in subject.engine.observe_all()) == sorted(handles)
    assert subject.other.observe_all() == []


def test_another_gateways_environment_cannot_be_touched(subject: EngineUnderTest) -> None:
    subject.engine.create(subject.spec())
    subject.engine.start(ALICE)
    subject.other.stop(ALICE, 1)
    subject.other.delete(ALICE)
    assert subject.other.observe(ALICE) is None
    assert running(subject)


def test_witness_tells_how_an_entrypoint_ended(subject: EngineUnderTest) -> None:
    subject.engine.create(subject.spec())
    subject.engine.start(ALICE)
    subject.end(ALICE, 3)
    wait_until(lambda: not running(subject), "the entrypoint ended by itself")
    assert subject.engine.observe(ALICE).exit_code == 3


def test_logs_give_the_last_lines(subject: EngineUnderTest) -> None:
    subject.engine.create(subject.spec())
    assert subject.engine.logs(ALICE) == ""
    subject.engine.start(ALICE)
    wait_until(lambda: "ready" in subject.engine.logs(ALICE), "the entrypoint wrote its first line")
    subject.engine.stop(ALICE, 10)
    subject.engine.start(ALICE)
    wait_until(lambda: subject.engine.logs(ALICE).count("ready") == 2, "it wrote it again")
    assert subject.engine.logs(ALICE, lines=1) == "probe is ready\n"


def test_image_finds_a_local_image(subject: EngineUnderTest) -> None:
    image = subject.engine.image(subject.image)
    assert image.reference == subject.image
    if not subject.has_local_images:
        return
    assert image.digest.startswith("sha256:")
    assert image.labels["org.devgw.contract"] == "probe"


def test_an_environment_is_made_from_an_image_by_its_digest(subject: EngineUnderTest) -> None:
    """A channel leads to a digest, whatever name the image has by then; which one runs is observed."""
    if not subject.has_local_images:
        return
    digest = subject.engine.image(subject.image).digest
    assert subject.engine.image(digest).digest == digest
    spec = subject.spec(image=digest)
    subject.engine.create(spec)
    subject.engine.start(spec.ref)
    observed = subject.engine.observe(spec.ref)
    assert observed is not None
    assert (observed.image, observed.running) == (digest, True)


def test_image_of_an_unknown_name_is_not_found(subject: EngineUnderTest) -> None:
    with pytest.raises(NotFoundError) as refusal:
        subject.engine.image("no-such-image:ever" if subject.has_local_images else "no image's name")
    assert refusal.value.code == "image.not-found"


def test_images_lists_those_with_our_labels(subject: EngineUnderTest) -> None:
    """Other images on the host are nobody's business here."""
    listed = subject.engine.images()
    assert (subject.image in [image.reference for image in listed]) is subject.has_local_images
    assert all(any(label.startswith(IMAGE_LABEL_PREFIX) for label in image.labels) for image in listed)


def test_a_gpu_the_engine_does_not_know_is_refused(subject: EngineUnderTest) -> None:
    """At create, or at start where the engine looks only then; it never runs without its GPU."""
    with pytest.raises(EngineError) as refusal:
        create_and_start(subject, (NO_SUCH_GPU,))
    assert refusal.value.code == "gpu.injection"
    assert not running(subject)


def create_and_start(subject: EngineUnderTest, gpus: tuple[GpuUuid, ...]) -> None:
    subject.engine.create(subject.spec(gpus=gpus))
    subject.engine.start(ALICE)


def test_a_mount_source_that_is_a_file_works(subject: EngineUnderTest, tmp_path: Path) -> None:
    """A password hash is mounted as one file."""
    file = tmp_path / "one-file"
    file.write_text("content")
    spec = subject.spec()
    subject.engine.create(replace(spec, mounts=(*spec.mounts, Mount(file, "/etc/one-file", read_only=True))))
    subject.engine.start(ALICE)
    assert running(subject)
