"""Which way a GPU takes into a container, from what the engine says of itself."""

import pytest

from gateway.engines.docker.injection import Injection, device_requests, injection_of, visible_devices
from gateway.errors import EngineError
from gateway.model import GpuUuid

GPU = GpuUuid("GPU-1")
KNOWN = [{"Source": "cdi", "ID": "nvidia.com/gpu=GPU-1"}]


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        # CDI wherever it is on
        ({"CDISpecDirs": ["/etc/cdi"]}, "cdi"),
        ({"CDISpecDirs": ["/etc/cdi"], "Runtimes": {"nvidia": {}}}, "cdi"),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": KNOWN}, "cdi"),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": []}, "cdi"),
        # the hook where CDI is off, absent, or known to have no GPU
        ({"CDISpecDirs": [], "Runtimes": {"nvidia": {}}}, "runtime-hook"),
        ({"CDISpecDirs": None, "Runtimes": {"nvidia": {}}}, "runtime-hook"),
        ({"Runtimes": {"nvidia": {}}}, "runtime-hook"),
        ({"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": [], "Runtimes": {"nvidia": {}}}, "runtime-hook"),
        # neither
        ({}, "none"),
        ({"CDISpecDirs": [], "Runtimes": {"runc": {}}}, "none"),
    ],
)
def test_the_way_is_chosen(info: dict[str, object], kind: str) -> None:
    chosen = injection_of(info)
    assert chosen.kind == kind
    assert chosen.reason


@pytest.mark.parametrize("kind", ["cdi", "runtime-hook", "none"])
def test_without_gpus_nothing_is_requested(kind: str) -> None:
    injection = Injection(kind, "")  # type: ignore[arg-type]  # a parametrised literal
    assert device_requests((), injection) == []
    assert visible_devices((), injection) == "void"


def test_all_gpus_stand_in_one_request() -> None:
    [request] = device_requests((GPU, GpuUuid("GPU-2")), Injection("cdi", ""))
    assert request["DeviceIDs"] == ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"]
    assert (request["Count"], request["Options"]) == (0, {})


def test_an_engine_that_cannot_inject_refuses_with_the_reason() -> None:
    with pytest.raises(EngineError) as refusal:
        device_requests((GPU,), Injection("none", "no way in"))
    assert (refusal.value.code, refusal.value.message) == ("gpu.injection", "no way in")


def test_a_device_the_engine_does_not_list_is_named() -> None:
    with pytest.raises(EngineError) as refusal:
        device_requests((GPU, GpuUuid("GPU-2")), injection_of({"CDISpecDirs": ["/c"], "DiscoveredDevices": KNOWN}))
    assert "GPU-2" in refusal.value.message
    assert "GPU-1" not in refusal.value.message
