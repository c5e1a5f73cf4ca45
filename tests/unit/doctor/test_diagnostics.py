"""Every judgement as a table: a healthy host with one thing changed has one thing to say, with one fix."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.doctor.diagnostics import diagnose
from gateway.doctor.facts import CdiSpec, DiskFacts, Facts, FileFacts, GpuProcess, ServiceFacts, Space, Wish
from gateway.doctor.finding import Level, Unasked, report_of
from gateway.gpus.sensors import Sensors
from gateway.model import EnvironmentRef, Limits
from tests.unit.doctor.conftest import ALICE, CDI, GIB, SENSORS, UUIDS, gpu

FAILURE, WARNING, UNKNOWN = Level.FAILURE, Level.WARNING, Level.UNKNOWN
BOB = EnvironmentRef.parse("bob")
SILENT = Sensors(error="Driver Not Loaded")
MISMATCH = Sensors(error="Driver/library version mismatch")
Change = Callable[[Facts], Facts]


def inner(part: str, **values: Any) -> Change:
    """Return what changes one part of the facts."""
    return lambda facts: replace(facts, **{part: replace(getattr(facts, part), **values)})


def outer(**values: Any) -> Change:
    """Return what replaces whole facts."""
    return lambda facts: replace(facts, **values)


def sensed(*devices: Any, **values: Any) -> Change:
    """Return what makes the driver tell other devices."""
    return inner("driver", sensors=replace(SENSORS, devices=devices or SENSORS.devices, **values))


def spec(**values: Any) -> Change:
    return inner("cdi", specs=(replace(CDI.specs[0], **values),))


def limits(**values: int) -> Change:
    standard = {"memory_bytes": 16 * GIB, "cpus": 4, "pids": 4096, "shm_bytes": 8 * GIB}
    return inner("wish", limits=Limits(**{**standard, **values}))


def disk(free_bytes: int, inodes_percent: float = 50.0) -> Change:
    return inner("host", spaces=(Space("state", Path("/var"), free_bytes, 900 * GIB, inodes_percent),))


def file(mode: int, uid: int = 0) -> tuple[FileFacts, ...]:
    return (FileFacts(Path("/var/lib/devgw/x"), mode, uid),)


def unit(**values: Any) -> Change:
    service = ServiceFacts(Path("/etc/systemd/system/devgw.service"), "devgw", Path("/opt/devgw/bin/devgw"), "")
    return inner("site", service=replace(service, **values))


SLICE = gpu(1, uuid="MIG-1", index="0:0", parent=UUIDS[0], mig_mode=None, is_persistent=None)

CASES: list[tuple[Change, str, Level, str]] = [
    # the driver
    (inner("driver", sensors=MISMATCH), "driver.answers", FAILURE, "mismatch"),
    (inner("driver", sensors=SILENT), "driver.answers", FAILURE, "kernel module 570.124.06 is loaded"),
    (inner("driver", sensors=SILENT, module=""), "driver.answers", FAILURE, "no driver is loaded"),
    (sensed(lost=("GPU 1: GPU is lost",)), "driver.answers", FAILURE, "GPU is lost"),
    (inner("driver", libraries=("580.65.06",)), "driver.module", FAILURE, "libraries are 580.65.06"),
    (inner("driver", libraries=("570.124.06", "580.65.06")), "driver.module", WARNING, "beside"),
    (inner("driver", libraries=()), "driver.module", UNKNOWN, "libcuda"),
    (sensed(gpu(capability=(10, 0)), driver="560.35.05"), "driver.silicon", FAILURE, "branch R570"),
    (sensed(gpu(capability=None)), "driver.silicon", UNKNOWN, "what its GPUs can do"),
    # the image's CUDA: the rows of the two tables
    (sensed(driver="525.60.13"), "image.cuda", WARNING, "its own driver is 570.26"),
    (sensed(driver="520.61.05"), "image.cuda", FAILURE, "runs from 525.60.13"),
    (inner("image", labels={"devgw-environment": "1", "cuda": "13.0"}), "image.cuda", FAILURE, "580.65.06"),
    (inner("image", labels={"devgw-environment": "1", "cuda": "99.0"}), "image.cuda", UNKNOWN, "not in devgw's table"),
    (inner("image", labels={"devgw-environment": "1"}), "image.cuda", WARNING, "built for the CPU"),
    (outer(image=Unasked("no image")), "image.cuda", UNKNOWN, "no image"),
    (inner("driver", sensors=SILENT), "image.cuda", UNKNOWN, "Driver Not Loaded"),
    (inner("image", variables={"NVIDIA_REQUIRE_CUDA": "cuda>=12.9"}), "image.requirement", FAILURE, "cuda>=12.9"),
    (inner("image", variables={"NVIDIA_REQUIRE_CUDA": "gibberish"}), "image.requirement", UNKNOWN, "gibberish"),
    # the unit of systemd's
    (unit(obstacle="/opt/devgw/bin/devgw is not there", is_absent=True), "site.service", FAILURE, "is not there"),
    (unit(obstacle="the account devgw may not enter /root"), "site.service", FAILURE, "may not enter /root"),
    (inner("site", service=Unasked("/root/x can be read by another alone")), "site.service", UNKNOWN, "another alone"),
    # toolkit and injection
    (inner("toolkit", version=""), "toolkit.version", FAILURE, "not installed"),
    (inner("toolkit", version="1.17.7"), "toolkit.version", FAILURE, "CVE-2025-23266"),
    (inner("toolkit", version="1.17.3"), "toolkit.version", FAILURE, "CVE-2025-23359"),
    (inner("toolkit", version="1.16.1"), "toolkit.version", FAILURE, "CVE-2024-0132"),
    (inner("toolkit", version="unreleased"), "toolkit.version", UNKNOWN, "no version"),
    (inner("engine", default_runtime="nvidia"), "toolkit.variable", WARNING, "default runtime is 'nvidia'"),
    (inner("engine", gpu_injection="runtime-hook"), "engine.cgroup-driver", FAILURE, "daemon-reload"),
    (inner("engine", gpu_injection="runtime-hook"), "engine.injection", WARNING, "can lose"),
    (inner("engine", gpu_injection="none"), "engine.injection", FAILURE, "neither CDI"),
    (spec(driver="535.86.05"), "cdi.specs", FAILURE, "of driver 535.86.05"),
    (spec(devices=frozenset(UUIDS[:1])), "cdi.specs", FAILURE, UUIDS[1]),
    (spec(devices=frozenset({"0", "1", "all"})), "cdi.specs", FAILURE, "by index only"),
    (spec(devices=frozenset({*UUIDS, "GPU-99"})), "cdi.specs", WARNING, "no longer has"),
    (inner("cdi", specs=()), "cdi.specs", FAILURE, "no CDI spec"),
    (inner("cdi", unreadable=(Path("/etc/cdi/x.yaml"),)), "cdi.specs", FAILURE, "cannot be read"),
    (inner("driver", sensors=SILENT), "cdi.specs", UNKNOWN, "2 devices"),
    # the GPUs
    (sensed(gpu(is_persistent=False)), "gpu.persistence", WARNING, "is off on GPU 0"),
    (sensed(gpu(is_persistent=None)), "gpu.persistence", UNKNOWN, "does not tell"),
    (sensed(gpu(mig_mode=(True, True))), "gpu.mig", WARNING, "has no slices"),
    (sensed(gpu(mig_mode=(False, True))), "gpu.mig", WARNING, "will be on"),
    (outer(leases={"MIG-9": ALICE}), "gpu.leases", FAILURE, "MIG-9 (alice)"),
    (outer(leases=Unasked("locked")), "gpu.leases", UNKNOWN, "locked"),
    (outer(leases=Unasked("locked")), "gpu.processes", UNKNOWN, "locked"),
    (outer(processes=(GpuProcess(1, UUIDS[0], "Xorg", None),)), "gpu.processes", WARNING, "Xorg (pid 1)"),
    (outer(processes=(GpuProcess(1, UUIDS[1], "py", ALICE),)), "gpu.processes", FAILURE, "does not hold"),
    (outer(processes=(GpuProcess(1, UUIDS[0], "py", BOB),)), "gpu.processes", FAILURE, "bob (pid 1)"),
    (outer(processes=Unasked("not ours")), "gpu.processes", UNKNOWN, "not ours"),
    # the engine
    (outer(engine=Unasked("away")), "engine.answers", FAILURE, "away"),
    (outer(engine=Unasked("away")), "engine.injection", UNKNOWN, "away"),
    (inner("engine", version="20.10.24"), "engine.version", WARNING, "knows no CDI"),
    (inner("engine", api_version=(1, 43)), "engine.version", WARNING, "stays writable"),
    (inner("engine", seccomp=""), "engine.seccomp", FAILURE, "no environments"),
    (inner("engine", seccomp="unconfined"), "engine.seccomp", WARNING, "unconfined"),
    (inner("engine", missing_limits=("swap",)), "engine.limits", FAILURE, "swap"),
    (inner("wish", read_only_root=False), "engine.root", WARNING, "has no size"),
    (inner("engine", cgroup_version="1"), "engine.limits", WARNING, "cgroup v1"),
    (inner("engine", ceilings={"memlock": 65536}), "engine.memlock", WARNING, "64 KiB"),
    (inner("engine", has_live_restore=False), "engine.live-restore", WARNING, "ends every environment"),
    (inner("engine", remaps_users=True), "engine.users", FAILURE, "remapping"),
    (inner("engine", is_rootless=True), "engine.users", FAILURE, "Docker runs without root and keeps no"),
    (inner("engine", missing_limits=("memory",), is_rootless=True), "engine.limits", FAILURE, "does NOT limit memory"),
    (inner("engine", product="Podman", version="5.4.2"), "engine.version", WARNING, "Podman 5.4.2"),
    (inner("image", labels={"cuda": "12.8"}), "image.contract", FAILURE, "not built by devgw"),
    (outer(image=Unasked("no image")), "image.contract", UNKNOWN, "no image"),
    # the machine
    (disk(GIB // 2), "host.disk.state", FAILURE, "is full"),
    (disk(5 * GIB), "host.disk.state", WARNING, "nearly full"),
    (disk(500 * GIB, 2.0), "host.disk.state", WARNING, "inodes"),
    (inner("host", memory_bytes=8 * GIB), "host.memory", WARNING, "the host has 8.0 GiB"),
    (inner("host", memory_bytes=Unasked("gone")), "host.memory", UNKNOWN, "gone"),
    (limits(shm_bytes=64 * 2**20), "host.shm", WARNING, "64 MiB"),
    (inner("host", pid_max=32768), "host.pids", WARNING, "32768"),
    (limits(pids=2_000_000), "host.pids", WARNING, "2000000"),
    (inner("host", inotify_watches=8192), "host.inotify-watches", WARNING, "8192"),
    (inner("host", inotify_watches=Unasked("gone")), "host.inotify-watches", UNKNOWN, "gone"),
    (inner("host", inotify_instances=64), "host.inotify-instances", WARNING, "64"),
    (inner("host", clock_is_synchronised=False), "host.clock", WARNING, "not synchronised"),
    (inner("host", clock_is_synchronised=Unasked("no")), "host.clock", UNKNOWN, "no"),
    # the site
    (inner("site", is_initialised=False), "site.state", WARNING, "not initialised"),
    (inner("site", private=file(0o40755)), "site.permissions", FAILURE, "mode 0755"),
    (inner("site", private=file(0o40700, 1000)), "site.permissions", FAILURE, "uid 1000"),
    (inner("site", keys=file(0o100640)), "site.keys", FAILURE, "mode 0640"),
    (inner("site", keys=file(0o100600, 1000)), "site.keys", FAILURE, "uid 1000"),
    (inner("site", keys=()), "site.keys", FAILURE, "not there"),
    (inner("site", policy_error="line 3"), "site.policy", FAILURE, "line 3"),
    (inner("site", database="malformed"), "site.database", FAILURE, "malformed"),
    (inner("site", database=Unasked("denied")), "site.database", UNKNOWN, "denied"),
    (inner("site", journal="record 7 was changed"), "site.journal", FAILURE, "record 7"),
    (inner("site", journal=Unasked("denied")), "site.journal", UNKNOWN, "denied"),
    (inner("site", troubles=("alice: x", "bob: x")), "site.environments", FAILURE, "more"),
    (inner("site", troubles=Unasked("denied")), "site.environments", UNKNOWN, "denied"),
    (inner("site", disks=DiskFacts(unkept=("alice, no root", "bob, no root"))), "site.disks", WARNING, "1 more"),
    (inner("site", disks=DiskFacts(kept=1, nearly_full=("alice, 97 %",))), "site.disks", WARNING, "alice, 97 %"),
    (inner("site", disks=DiskFacts(kept=1, leavable="users could leave")), "site.disks", WARNING, "could leave"),
    (inner("site", disks=Unasked("denied")), "site.disks", UNKNOWN, "denied"),
    (inner("site", duties="'rounds' died once"), "site.duties", WARNING, "died once"),
    (inner("site", opened_macs=("hmac-sha2-256",)), "site.macs", WARNING, "server.macs permits hmac-sha2-256"),
    (inner("site", port_holder="address already in use"), "site.port", FAILURE, "cannot be had"),
]


@pytest.mark.parametrize(("change", "check", "level", "words"), CASES, ids=[f"{c[1]}-{c[3][:20]}" for c in CASES])
def test_what_is_ill_is_found_and_has_a_fix(
    healthy: Facts, change: Change, check: str, level: Level, words: str
) -> None:
    """The named check says so in words, and everything that is not ok has a fix."""
    findings = list(diagnose(change(healthy)))
    found = [finding for finding in findings if finding.check == check]
    assert [finding.level for finding in found] == [level]
    assert words in found[0].message
    assert all(bool(finding.fix) is (finding.level is not Level.OK) for finding in findings)


def test_the_nvidia_default_runtime_that_obeys_variables_is_a_failure(healthy: Facts) -> None:
    """Both halves of the trap together: any image could choose GPUs."""
    trap = inner("toolkit", accepts_variable=True)(inner("engine", default_runtime="nvidia")(healthy))
    assert level_of(trap, "toolkit.variable") is FAILURE


def test_the_hook_under_cgroupfs_is_no_failure(healthy: Facts) -> None:
    """`daemon-reload` rewrites the device rules of systemd's scopes alone."""
    hook = inner("engine", gpu_injection="runtime-hook", cgroup_driver="cgroupfs")(healthy)
    assert level_of(hook, "engine.cgroup-driver") is Level.OK


def test_docker_without_root_that_keeps_its_user_is_no_failure(healthy: Facts) -> None:
    kept = inner("engine", is_rootless=True, keeps_user=True)(healthy)
    assert level_of(kept, "engine.users") is Level.OK


def test_a_gpu_in_mig_mode_is_judged_by_its_slices(healthy: Facts) -> None:
    """Its own UUID need not stand in the specs; the slices' must."""
    whole = gpu(0, mig_mode=(True, True))
    mig = sensed(whole, SLICE)(healthy)
    assert level_of(mig, "gpu.mig") is Level.OK
    assert level_of(mig, "cdi.specs") is FAILURE
    assert level_of(spec(devices=frozenset({"MIG-1"}))(mig), "cdi.specs") is Level.OK


def test_an_environment_without_a_gpu_may_have_an_image_for_the_cpu(healthy: Facts) -> None:
    image = replace(healthy.image, labels={"devgw-environment": "1"})  # type: ignore[type-var]  # it is an image
    wish = Wish("devgw/env:cpu", healthy.wish.limits, wants_gpu=False)
    assert level_of(replace(healthy, image=image, wish=wish), "image.cuda") is Level.OK


def test_a_healthy_host_has_nothing_to_mend(healthy: Facts) -> None:
    report = report_of(diagnose(healthy))
    assert [finding for finding in report.findings if finding.level is not Level.OK] == []
    assert report.exit_code == 0
    assert len({finding.check for finding in report.findings}) == len(report.findings) > 30


def test_a_host_without_a_gpu_is_not_ill_for_it(healthy: Facts) -> None:
    """One line says that the checks do not apply; none of them is counted as passed."""
    bare = inner("driver", pci_gpus=0, module="", libraries=(), sensors=Sensors(error="Not Found"))(healthy)
    report = report_of(diagnose(bare))
    assert report.exit_code == 0
    assert [f.message for f in report.findings if f.check == "driver.answers"] == [
        "this host has no NVIDIA GPU: checks of GPUs do not apply"
    ]
    assert not [f for f in report.findings if f.check.startswith(("gpu.", "cdi.", "toolkit."))]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (inner("host", clock_is_synchronised=False), 1),
        (inner("host", clock_is_synchronised=Unasked("no")), 1),
        (inner("site", keys=()), 2),
    ],
)
def test_exit_codes_are_0_1_2_and_the_unknown_is_never_0(healthy: Facts, change: Change, code: int) -> None:
    assert report_of(diagnose(change(healthy))).exit_code == code


def test_every_check_is_documented(healthy: Facts) -> None:
    """Every name that the tables above and a healthy host bring up has a row in docs/reference/doctor.md."""
    page = (Path(__file__).parents[3] / "docs/reference/doctor.md").read_text()
    names = {finding.check for finding in diagnose(healthy)} | {check for _, check, _, _ in CASES}
    assert not [name for name in sorted(names) if f"| `{name.replace('disk.state', 'disk.*')}` |" not in page]


def level_of(facts: Facts, check: str) -> Level:
    return next(finding.level for finding in diagnose(facts) if finding.check == check)


def test_cdi_spec_names_need_not_match_in_case(healthy: Facts) -> None:
    named = CdiSpec(Path("/etc/cdi/x.yaml"), frozenset(uuid.upper() for uuid in UUIDS), "570.124.06")
    assert level_of(inner("cdi", specs=(named,))(healthy), "cdi.specs") is Level.OK


def test_where_no_disk_has_a_size_that_is_said(healthy: Facts) -> None:
    """It is no illness, and an administrator reads what follows from it."""
    changed = inner("site", disks=DiskFacts(why_not="the gateway is not root", unsized=2))(healthy)
    told = next(found for found in diagnose(changed) if found.check == "site.disks")
    assert (told.level, "not root" in told.message, "may fill" in told.message) == (Level.OK, True, True)
