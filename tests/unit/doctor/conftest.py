"""A healthy host as facts; each test makes one of them ill."""

from pathlib import Path

import pytest

from gateway.doctor.facts import (
    CdiFacts,
    CdiSpec,
    DriverFacts,
    Facts,
    FileFacts,
    GpuProcess,
    HostFacts,
    SiteFacts,
    Space,
    ToolkitFacts,
    Wish,
)
from gateway.engines.diagnostics import EngineFacts, ImageFacts
from gateway.gpus.sensors import Measurement, Sensors
from gateway.model import EnvironmentRef, GpuUuid, Limits

ALICE = EnvironmentRef.parse("alice")
UUIDS = tuple(GpuUuid(f"GPU-0000000{n}-1111-4222-8333-444444444444") for n in range(2))
GIB = 2**30


def gpu(number: int = 0, **changes: object) -> Measurement:
    """Return a healthy H200."""
    facts: dict[str, object] = {
        "uuid": UUIDS[number], "name": "NVIDIA H200", "index": str(number), "is_persistent": True, "processes": (),
        "mig_mode": (False, False), "capability": (9, 0), "brand": "nvidia",
    }  # fmt: skip
    return Measurement(**{**facts, **changes})  # type: ignore[arg-type]  # a test's shorthand


SENSORS = Sensors("570.124.06", "12.8", (gpu(0), gpu(1)))
DRIVER = DriverFacts(2, "570.124.06", ("570.124.06",), SENSORS)
TOOLKIT = ToolkitFacts("1.17.8", accepts_variable=False)
CDI = CdiFacts((Path("/etc/cdi"),), (CdiSpec(Path("/etc/cdi/nvidia.yaml"), frozenset(UUIDS), "570.124.06"),))
ENGINE = EngineFacts(
    name="docker", version="28.3.0", api_version=(1, 51), default_runtime="runc", gpu_injection="cdi",
    cgroup_driver="systemd", cgroup_version="2", has_live_restore=True, remaps_users=False, seccomp="builtin",
    root_directory="/var/lib/docker", is_local=True, cdi_directories=("/etc/cdi",), marks={"a" * 64: ALICE},
)  # fmt: skip
IMAGE = ImageFacts("devgw/env:cuda", {"devgw-environment": "1.0", "cuda": "12.8", "torch": "2.8.0"}, {})
HOST = HostFacts(
    (Space("state", Path("/var/lib/devgw"), 500 * GIB, 900 * GIB),), 512 * GIB, 524288, 1024, 4194304, True
)
SITE = SiteFacts(
    is_initialised=True, uid=0, config_file=Path("/etc/devgw/devgw.toml"),
    private=(FileFacts(Path("/var/lib/devgw"), 0o40700, 0),), keys=(FileFacts(Path("/k/user_ca"), 0o100600, 0),),
    policy_error="", policy_file=Path("/etc/devgw/policy.toml"), database="", journal="", port=2222, port_holder="",
)  # fmt: skip
WISH = Wish("devgw/env:cuda", Limits(16 * GIB, 4, 4096, 8 * GIB))


@pytest.fixture
def healthy() -> Facts:
    """Return a host on which nothing is wrong, with one process of alice's on the GPU she holds."""
    process = GpuProcess(4711, UUIDS[0], "python", ALICE)
    return Facts(DRIVER, TOOLKIT, CDI, ENGINE, IMAGE, HOST, SITE, WISH, (process,), {UUIDS[0]: ALICE})
