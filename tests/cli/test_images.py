"""Images that move forward and back, by the real command line on a fake engine: the journal tells the story."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load_settings
from gateway.engines.interface import Image
from gateway.errors import EngineError, NotFoundError
from gateway.model import EnvironmentRef
from tests.cli.site import Outcome, Site, SiteApp

ALICE = EnvironmentRef.parse("alice")
GOOD, BAD, NEXT = (f"sha256:{letter * 64}" for letter in "abc")
LABELS = {"org.devgw.profile": "cuda", "org.devgw.devgw-environment": "1"}


@pytest.fixture
def cuda(site: Site) -> Site:
    """A site with three images, of which the channel `cuda` names the first on the engine, and alice runs it."""
    for name, digest in (("cuda", GOOD), ("cuda-aaaaaaaaaaaa", GOOD), ("cuda-bbbbbbbbbbbb", BAD), ("other", NEXT)):
        site.daemon.images[f"devgw/env:{name}"] = Image(f"devgw/env:{name}", digest, LABELS)
    site.run("devgw init -q")
    assert site.run("devgw create alice --image cuda --egress none -q").exit_code == 0
    return site


def app_of(site: Site) -> SiteApp:
    """The parts of the site, as a command would have them."""
    return SiteApp(load_settings(), site.engine, site.builder, site.daemon)


def document(outcome: Outcome) -> dict[str, Any]:
    assert outcome.exit_code == 0, outcome.stderr
    found: dict[str, Any] = json.loads(outcome.raw)
    return found


def digest_of(site: Site, handle: str = "alice") -> str:
    """The image that an environment was last started from, as `show` says it."""
    return str(document(site.run(f"devgw show {handle} -o json"))["environment"]["image_digest"])


def story(site: Site, *codes: str) -> list[tuple[str, str]]:
    """The journal's records of these codes: what happened, and the digest in it."""
    lines = site.run("devgw audit log -o json").raw.splitlines()
    records = [json.loads(line) for line in lines]
    return [(one["code"], one["detail"].get("digest", "")) for one in records if one["code"] in codes]


@pytest.mark.emits("image.promoted", "image.rolled-back")
def test_a_bad_image_is_promoted_and_rolled_back_and_the_journal_tells_it(cuda: Site) -> None:
    """Environments follow at their next start; which image ran when is in the journal, by digest."""
    assert digest_of(cuda) == GOOD
    moved = document(cuda.run(f"devgw image promote cuda@{BAD} --to cuda --reason newer -o json"))
    assert (moved["image_digest"], moved["previous"], moved["behind"]) == (BAD, GOOD, ["alice"])
    assert digest_of(cuda) == GOOD
    cuda.run("devgw stop alice")
    cuda.run("devgw start alice")
    assert digest_of(cuda) == BAD
    assert document(cuda.run("devgw image rollback cuda --reason broken --restart -o json"))["image_digest"] == GOOD
    assert digest_of(cuda) == GOOD
    told = story(cuda, "environment.created", "environment.started", "image.promoted", "image.rolled-back")
    assert told == [
        ("environment.created", GOOD),
        ("image.promoted", BAD),
        ("environment.started", BAD),
        ("image.rolled-back", GOOD),
        ("environment.started", GOOD),
    ]


@pytest.mark.emits("image.failed")
def test_a_rollback_that_leads_nowhere_is_refused_and_recorded(cuda: Site) -> None:
    """Before the first promotion, and behind the first image; the channel stays as it is."""
    assert cuda.run("devgw image rollback cuda").exit_code == 6
    cuda.run(f"devgw image promote {BAD} --to cuda")
    assert cuda.run("devgw image rollback cuda").exit_code == 0
    refused = cuda.run("devgw image rollback cuda")
    assert (refused.exit_code, "no image before" in refused.stderr) == (6, True)
    assert app_of(cuda).channels.choose("cuda").digest == GOOD


def test_a_promotion_that_was_killed_before_the_restart_is_finished_by_asking_again(cuda: Site) -> None:
    """The move is one transaction; who is behind is seen from the rows, so nothing is lost but time."""
    cuda.run(f"devgw image promote {BAD} --to cuda")
    again = document(cuda.run(f"devgw image promote {BAD} --to cuda --restart -o json"))
    assert (again["is_new"], again["behind"]) == (False, ["alice"])
    assert again["restarted"] == [{"handle": "alice", "error": None}]
    assert digest_of(cuda) == BAD
    assert story(cuda, "image.promoted") == [("image.promoted", BAD)]


def test_an_image_that_does_not_start_is_said_and_a_rollback_mends_it(cuda: Site) -> None:
    """The environment is failed with the reason, and the rollback starts it from the image before."""

    def refuse(step: str) -> None:
        if step == "start.process" and any(one.spec.image == BAD for one in cuda.daemon.containers.values()):
            raise EngineError("engine.failed", "exec format error")

    cuda.daemon.at_step = refuse
    promoted = cuda.run(f"devgw image promote {BAD} --to cuda --restart")
    assert (promoted.exit_code, "rollback cuda --restart" in promoted.stderr) == (1, True)
    shown = document(cuda.run("devgw show alice -o json"))["environment"]
    assert (shown["state"], "exec format error" in shown["detail"]) == ("failed", True)
    assert cuda.run("devgw image rollback cuda --restart").exit_code == 0
    assert document(cuda.run("devgw show alice -o json"))["environment"]["state"] == "running"
    assert digest_of(cuda) == GOOD


def test_a_restart_after_a_warning_is_the_gateways_to_do(cuda: Site) -> None:
    """It is written down, so that a gateway that starts later does it too; a rollback takes it back."""
    moved = document(cuda.run(f"devgw image promote {BAD} --to cuda --restart --after-warning -o json"))
    assert moved["restart_at"]
    assert app_of(cuda).table.require(ALICE).restart_at is not None
    assert "image its channel names" in cuda.run("devgw show alice").stdout
    cuda.run("devgw image rollback cuda")
    assert app_of(cuda).table.require(ALICE).restart_at is None


def test_a_pinned_environment_stays(cuda: Site) -> None:
    """Created by digest, it is started from that one whatever the channel does; a short digest is written out."""
    cuda.run("devgw delete alice --force --yes")
    made = cuda.run("devgw create alice --image cuda@sha256:aaaaaaaaaaaa --egress none -q")
    assert made.exit_code == 0, made.stderr
    moved = document(cuda.run(f"devgw image promote {BAD} --to cuda --restart -o json"))
    assert moved["behind"] == []
    cuda.run("devgw restart alice")
    assert digest_of(cuda) == GOOD
    assert document(cuda.run("devgw show alice -o json"))["environment"]["image"] == f"devgw/env:cuda@{GOOD}"


@pytest.mark.parametrize(
    ("image", "exit_code"),
    [
        (f"cuda@sha256:{'f' * 64}", 4),  # not there
        (f"sha256:{'f' * 12}", 4),
        (f"cpu@{BAD}", 4),  # never an image of that channel
        ("cuda@sha256:xyz", 2),  # no digest
        ("@", 2),
        ("no-such-image:ever", 4),
    ],
)
def test_what_is_no_image_is_not_promoted(cuda: Site, image: str, exit_code: int) -> None:
    refused = cuda.run(f"devgw image promote {image} --to cuda")
    assert refused.exit_code == exit_code, refused.stderr
    assert refused.stderr.startswith("devgw: error: ")
    assert app_of(cuda).image_table.moves() == []


def test_a_build_leaves_a_channel_alone_that_an_administrator_moved(site: Site) -> None:
    """Until then the newest build is what the channel names, and can be rolled back like a promotion."""
    site.run("devgw init -q")
    first = document(site.run("devgw image build --extra one -q -o json"))["image"]
    second = document(site.run("devgw image build --extra two -q -o json"))["image"]
    assert app_of(site).channels.choose("cpu").digest == second["image_digest"]
    site.run("devgw image rollback cpu")
    third = document(site.run("devgw image build --extra three -q -o json"))["image"]
    assert (first["is_in_channel"], second["is_in_channel"], third["is_in_channel"]) == (True, True, False)
    assert app_of(site).channels.choose("cpu").digest == first["image_digest"]
    assert site.daemon.image("devgw/env:cpu").digest == first["image_digest"]


@pytest.mark.emits("image.pulled", "image.imported")
def test_images_come_from_a_registry_or_an_archive_with_who_and_why(cuda: Site) -> None:
    """They keep a name of their own, are in no channel, and `show` says where they are from."""
    digest = f"sha256:{'e' * 64}"
    cuda.daemon.registry["registry.example.org/ml:3"] = Image("registry.example.org/ml:3", digest, LABELS)
    assert cuda.run("devgw image pull registry.example.org/ml:3 --reason trial").exit_code == 0
    archive = cuda.directory / "archive"
    archive.write_text(json.dumps({"name": "brought:1", "digest": f"sha256:{'9' * 64}", "labels": {}}))
    assert cuda.run("devgw image import archive").exit_code == 0
    assert cuda.run("devgw image import absent").exit_code == 1
    assert cuda.run("devgw image import photo.jpg").exit_code == 1
    shown = document(cuda.run("devgw image show eeeeeeeeeeee -o json"))["image"]
    assert (shown["origin"]["origin"], shown["origin"]["reason"]) == ("pulled", "trial")
    assert f"devgw/image:{'e' * 12}" in shown["names"]
    assert cuda.run("devgw image pull registry.example.org/none").exit_code == 1


@pytest.mark.emits("image.pruned")
def test_old_images_go_when_nothing_uses_them(cuda: Site) -> None:
    """Not what a channel names or a rollback may want, nor what somebody runs; a dry run says why."""
    cuda.run("devgw image promote devgw/env:other --to cuda")
    fates = document(cuda.run("devgw image prune --dry-run -o json"))["images"]
    assert {one["image_digest"]: one["goes"] for one in fates if one["image_digest"] in {GOOD, BAD, NEXT}} == {
        GOOD: False,
        BAD: True,
        NEXT: False,
    }
    assert BAD in {one.digest for one in app_of(cuda).image_store.all()}
    assert cuda.run("devgw image prune").exit_code == 0
    left = {one.digest for one in app_of(cuda).image_store.all()}
    assert (GOOD in left, BAD in left, NEXT in left) == (True, False, True)
    assert story(cuda, "image.pruned") == [("image.pruned", BAD)]


def test_the_image_before_stays_for_a_rollback_unless_less_is_to_be_kept(cuda: Site) -> None:
    cuda.run("devgw image promote devgw/env:other --to cuda --restart")
    cuda.run("devgw image prune")
    assert GOOD in {one.digest for one in app_of(cuda).image_store.all()}
    cuda.run("devgw image prune --keep 1")
    assert GOOD not in {one.digest for one in app_of(cuda).image_store.all()}


def test_a_name_that_somebody_else_moved_on_the_engine_moves_no_channel(cuda: Site) -> None:
    """Environments are started by the digest that was promoted, and that is what the engine is told."""
    cuda.run(f"devgw image promote {BAD} --to cuda")
    cuda.daemon.images["devgw/env:cuda"] = Image("devgw/env:cuda", NEXT, LABELS)
    cuda.run("devgw restart alice")
    assert digest_of(cuda) == BAD
    assert [one.spec.image for one in cuda.daemon.containers.values()] == [BAD]


def test_an_image_in_use_is_not_pruned_and_the_users_are_named(cuda: Site) -> None:
    refused = cuda.run("devgw image prune devgw/env:cuda")
    assert (refused.exit_code, "alice, which runs it" in refused.stderr) == (6, True)
    cuda.run(f"devgw image promote {BAD} --to cuda")
    assert cuda.run("devgw image prune aaaaaaaaaaaa").exit_code == 6  # alice runs it still
    cuda.run("devgw restart alice")
    assert cuda.run("devgw image prune aaaaaaaaaaaa").exit_code == 0
    gone = cuda.run("devgw image rollback cuda")
    assert (gone.exit_code, "is not on this host" in gone.stderr) == (4, True)


def test_what_is_inside_is_shown_compared_and_read_once(cuda: Site) -> None:
    """A bill of materials in CycloneDX; the difference of two images is by package."""
    status = "Package: {}\nStatus: install ok installed\nVersion: {}\nArchitecture: amd64\n"
    torch = b"Metadata-Version: 2.1\nName: Torch\nVersion: 2.%d\n\ntext"
    for digest, minor in ((GOOD, 8), (BAD, 13)):
        cuda.daemon.image_files[digest] = {
            "var/lib/dpkg/status": status.format("openssl", "3.0").encode(),
            "opt/devgw/lib/python3.12/site-packages/torch-2.dist-info/METADATA": torch % minor,
            "home/secret": b"Name: nobody\nVersion: 1",
        }
    bill = json.loads(cuda.run("devgw image show cuda --sbom").stdout)
    assert (bill["bomFormat"], sorted(one["name"] for one in bill["components"])) == ("CycloneDX", ["openssl", "torch"])
    found = document(cuda.run(f"devgw image diff cuda {BAD} -o json"))["differences"]
    assert found == [{"name": "torch", "kind": "pypi", "before": "2.8", "after": "2.13"}]
    cuda.daemon.image_files.clear()
    assert json.loads(cuda.run("devgw image show cuda --sbom").stdout) == bill


def test_a_scan_without_a_scanner_says_what_is_missing(cuda: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cuda.directory))
    refused = cuda.run("devgw image scan cuda")
    assert (refused.exit_code, "trivy or grype" in refused.stderr) == (1, True)


def test_a_scanner_that_is_there_is_asked_and_its_answer_read(cuda: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with grype's form of answer; what it cannot say is an error, not a clean bill."""
    place = cuda.directory / "bin"
    answer = {
        "matches": [
            {
                "vulnerability": {"id": "CVE-2026-1", "severity": "High", "fix": {"versions": ["3.1"]}},
                "artifact": {"name": "openssl", "version": "3.0"},
            }
        ]
    }
    _write_program(place / "grype", f"cat <<'EOF'\n{json.dumps(answer)}\nEOF")
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    found = document(cuda.run("devgw image scan cuda -o json"))
    assert [(one["id"], one["severity"], one["fixed_in"]) for one in found["vulnerabilities"]] == [
        ("CVE-2026-1", "high", "3.1")
    ]
    assert cuda.run("devgw image scan cuda --fail-on high").exit_code == 1
    assert cuda.run("devgw image scan cuda --fail-on critical").exit_code == 0
    for words in ("echo no database >&2; exit 1", "echo '[]'", "echo nonsense"):
        _write_program(place / "grype", words)
        failed = cuda.run("devgw image scan cuda")
        assert (failed.exit_code, "grype could not judge" in failed.stderr) == (1, True)


def test_an_image_that_the_policy_denies_by_digest_is_not_started_through_a_channel(cuda: Site) -> None:
    """Neither made nor started again; going back is the way out."""
    policy = cuda.directory / "config/policy.toml"
    policy.write_text(policy.read_text().replace('images = ["*"]', f'images = ["*"]\ndeny.images = ["{BAD}"]', 1))
    cuda.run(f"devgw image promote {BAD} --to cuda")
    refused = cuda.run("devgw restart alice")
    assert (refused.exit_code, "is denied" in refused.stderr) == (5, True), refused.stderr
    assert cuda.run("devgw create bob --image cuda --egress none").exit_code == 5
    assert cuda.run("devgw image rollback cuda --restart").exit_code == 0
    assert digest_of(cuda) == GOOD


def test_an_image_that_no_longer_fits_the_host_says_so_through_its_channel(
    cuda: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own cure, building it anew, is not hidden behind the channel's."""

    def outdated(reference: str) -> Image:
        raise NotFoundError("image.outdated", f"the image {reference} no longer fits this host", "build it anew")

    cuda.run(f"devgw image promote {BAD} --to cuda")
    monkeypatch.setattr(cuda.engine, "image", outdated)
    refused = cuda.run("devgw restart alice")
    assert (refused.exit_code, "no longer fits" in refused.stderr) == (4, True), refused.stderr


def test_the_doctor_looks_at_the_image_of_a_pinned_environment(cuda: Site) -> None:
    """By its digest: the pin is no name that an engine knows."""
    cuda.run("devgw create bob --image cuda@sha256:aaaaaaaaaaaa --egress none -q")
    found = json.loads(cuda.run("devgw doctor bob -o json").raw)
    assert {one["level"] for one in found["findings"] if one["check"] == "image.contract"} == {"ok"}


def _write_program(path: Path, words: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(0o755)
