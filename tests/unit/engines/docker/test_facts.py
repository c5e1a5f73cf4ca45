"""What an administrator is told about an engine."""

import pytest

from gateway.engines.docker.facts import facts_of, missing_limits, report_of
from tests.fakes.docker_daemon import HEALTHY_INFO

PODMAN = {"BuildahVersion": "1.39.3", "Rootless": False, "CgroupVersion": "2", "CDISpecDirs": None}
ROOTLESS_DOCKER = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}
KEEPING_DOCKER = {**ROOTLESS_DOCKER, "Runtimes": {"runc": {"path": "runc"}, "devgw-keep-id": {"path": "/x"}}}


@pytest.mark.parametrize(
    ("change", "api", "ceilings", "words"),
    [
        ({"SecurityOptions": ["name=apparmor"]}, "1.45", {}, "no seccomp"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "1.45", {}, "'unconfined'"),
        ({"DefaultRuntime": "nvidia"}, "1.45", {}, "default runtime is 'nvidia'"),
        ({}, "1.43", {}, "API below 1.44"),
        ({"SwapLimit": False}, "1.45", {}, "cannot limit swap"),
        ({"PidsLimit": False}, "1.45", {}, "cannot limit processes"),
        ({}, "1.45", {"memlock": 8388608}, "cannot raise memlock above 8388608"),
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"]}, "1.45", {}, "remapping"),
        (PODMAN, "1.41", {}, "this is Podman"),
        ({**PODMAN, "Rootless": True}, "1.41", {}, "its own user, and egress is none"),
        ({**PODMAN, "Rootless": True}, "1.41", {}, "drops ulimits"),
        ({**PODMAN, "Rootless": True, "CgroupVersion": "1"}, "1.41", {}, "NOT enforced"),
        (ROOTLESS_DOCKER, "1.45", {}, "runs without root and keeps no user's id"),
        (KEEPING_DOCKER, "1.45", {}, "Docker runs without root: environments belong to its own user"),
        ({**KEEPING_DOCKER, "CgroupDriver": "none"}, "1.45", {}, "NOT enforced"),
    ],
)
def test_a_fault_is_noted(change: dict[str, object], api: str, ceilings: dict[str, int], words: str) -> None:
    info = {**HEALTHY_INFO, **change}
    report = report_of(info, facts_of(info, api, ceilings))
    assert any(words in note for note in report.notes)


def test_a_sound_engine_has_only_its_way_of_injection_to_tell() -> None:
    report = report_of(HEALTHY_INFO, facts_of(HEALTHY_INFO, "1.45", {}))
    assert (report.name, report.version, report.gpu_injection) == ("docker", "26.1.5", "cdi")
    assert report.notes == ("CDI specs are read from /etc/cdi",)


@pytest.mark.parametrize(
    ("options", "profile"),
    [
        (["name=seccomp,profile=builtin"], "builtin"),
        (["name=seccomp,profile=default"], "default"),
        (["name=seccomp"], "builtin"),
        (["name=apparmor", "name=seccomp,profile=/etc/p.json"], "/etc/p.json"),
        ([], ""),
        (None, ""),
    ],
)
def test_the_default_seccomp_profile_is_read(options: list[str] | None, profile: str) -> None:
    assert facts_of({"SecurityOptions": options}, "1.45", {}).seccomp == profile


def test_podman_injects_by_cdi_although_it_names_no_directory() -> None:
    facts = facts_of({**HEALTHY_INFO, **PODMAN}, "1.41", {})
    assert (facts.is_podman, facts.maps_users, facts.injection.kind) == (True, False, "cdi")


def test_docker_without_root_is_not_taken_for_podman() -> None:
    """It maps users as well, and knows no `keep-id` unless our runtime is among its own."""
    facts = facts_of({**HEALTHY_INFO, **ROOTLESS_DOCKER}, "1.45", {})
    assert (facts.is_podman, facts.maps_users, facts.keeps_user) == (False, True, False)
    assert facts_of({**HEALTHY_INFO, **KEEPING_DOCKER}, "1.45", {}).keeps_user


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({**PODMAN, "Rootless": True, "CgroupVersion": "1"}, ("memory", "swap", "processor time", "processes")),
        ({**PODMAN, "Rootless": True}, ()),
        ({**PODMAN, "CgroupVersion": "1"}, ()),
        ({**ROOTLESS_DOCKER, "CgroupDriver": "none"}, ("memory", "swap", "processor time", "processes")),
        ({**ROOTLESS_DOCKER, "CgroupDriver": "systemd"}, ()),
        ({"PidsLimit": False}, ("processes",)),
    ],
)
def test_limits_that_are_taken_and_dropped_are_missing(change: dict[str, object], missing: tuple[str, ...]) -> None:
    """Podman 5.4.2 without root says on version 1 of cgroups that it has them all."""
    assert missing_limits({**HEALTHY_INFO, **change}) == missing
