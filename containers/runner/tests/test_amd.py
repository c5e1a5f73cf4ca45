"""AMD's GPUs: their state from the kernel's files, their peaks, and the plan's names. The files here are made up."""

from pathlib import Path

import pytest
from devgw_runner.errors import PrecisionError
from devgw_runner.metrics.amd import read_amd_gpus
from devgw_runner.metrics.peak import peak_flops
from devgw_runner.plan.facts import DeviceFacts
from devgw_runner.preflight.check import State
from devgw_runner.preflight.gpu import check_device, compare_amd_architecture
from devgw_runner.wrap.sidecar import write_gpu_state

from test_plan import plan

GIB = 2**30
MI300X = {
    "vendor": "0x1002",
    "mem_info_vram_total": str(192 * GIB),
    "mem_info_vram_used": str(3 * GIB),
    "gpu_busy_percent": "87",
    "product_name": "AMD Instinct MI300X",
    "unique_id": "b1c2d3",
    "hwmon/hwmon4/temp1_input": "64000",
    "hwmon/hwmon4/power1_average": "512500000",
}


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch):
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def drm_of(root: Path, *cards: dict[str, str]) -> Path:
    """As the kernel lays it out: card<N>/device leads to the PCI device; connectors and render nodes stand beside."""
    drm = root / "drm"
    (drm / "renderD128").mkdir(parents=True)
    for number, files in enumerate(cards):
        device = root / "pci" / f"0000:{number:02x}:00.0"
        for name, text in files.items():
            (device / name).parent.mkdir(parents=True, exist_ok=True)
            (device / name).write_text(text + "\n")
        for name in (f"card{number}", f"card{number}-DP-1"):
            (drm / name).mkdir()
            (drm / name / "device").symlink_to(device)
    return drm


def test_a_cards_state_is_read_in_its_own_units(tmp_path):
    """Thousandths of a degree and millionths of a watt become degrees and watts; a card counts once."""
    (gpu,) = read_amd_gpus(drm_of(tmp_path, MI300X))
    assert gpu.to_json() == {
        "name": "AMD Instinct MI300X",
        "uuid": "GPU-b1c2d3",
        "memory_used_bytes": 3 * GIB,
        "memory_total_bytes": 192 * GIB,
        "utilisation_percent": 87,
        "temperature_celsius": 64,
        "power_watts": 512.5,
    }
    write_gpu_state([gpu], tmp_path)
    assert 'devgw_gpu_power_watts{uuid="GPU-b1c2d3"} 512.5' in (tmp_path / "gpu.prom").read_text()


def test_what_a_card_does_not_tell_is_left_out(tmp_path):
    """An older kernel, a virtual function: no sensors, no name. A newer card tells its present power only."""
    bare = {name: MI300X[name] for name in ("vendor", "mem_info_vram_total", "mem_info_vram_used")}
    newer = {**bare, "hwmon/hwmon0/power1_input": "1000000", "unique_id": "0xaa"}
    first, second = read_amd_gpus(drm_of(tmp_path, bare, newer))
    assert set(first.to_json()) == {"name", "uuid", "memory_used_bytes", "memory_total_bytes"}
    assert first.uuid == "PCI-0000:00:00.0"
    assert (second.uuid, second.power_watts) == ("GPU-aa", 1.0)


def test_other_makers_cards_and_machines_without_any_have_no_state(tmp_path):
    assert read_amd_gpus(drm_of(tmp_path, {**MI300X, "vendor": "0x10de"})) == []
    assert read_amd_gpus(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("variables", "seen"),
    [
        ({}, ["a", "b", "c"]),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, ["c", "a"]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "1,7,0"}, ["b"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-b,GPU-c", "HIP_VISIBLE_DEVICES": "1"}, ["c"]),
    ],
)
def test_hidden_devices_are_not_seen(tmp_path, monkeypatch, variables, seen):
    """ROCr counts the machine's devices, HIP those that ROCr left."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cards = [{**MI300X, "unique_id": name} for name in "abc"]
    assert [gpu.uuid for gpu in read_amd_gpus(drm_of(tmp_path, *cards))] == [f"GPU-{name}" for name in seen]


def test_without_nvidias_driver_amds_answers(tmp_path, monkeypatch):
    """The side car and the preflight ask one question, whoever made the GPU."""
    import pynvml
    from devgw_runner.metrics import gpu

    def no_driver():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    monkeypatch.setattr("devgw_runner.metrics.amd.DRM", drm_of(tmp_path, MI300X))
    assert [state.name for state in gpu.read_gpus()] == ["AMD Instinct MI300X"]


def test_an_amd_device_has_a_peak_and_so_an_mfu():
    device = DeviceFacts("cuda", "AMD Instinct MI250X", (9, 0), 110, 64 * GIB, hip="6.4", visible=1)
    assert peak_flops(device, "bf16") == 191.5e12
    assert peak_flops(device, "fp8") is None  # it has no such arithmetic


def amd(architecture: tuple[int, int]) -> DeviceFacts:
    return DeviceFacts("cuda", "AMD GPU", architecture, 110, 64 * GIB, hip="6.4", visible=1)


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [((9, 0), "bf16"), ((9, 4), "bf16"), ((11, 0), "bf16"), ((10, 3), "fp32")],
)
def test_the_precision_goes_by_amds_architectures(architecture, precision):
    """9.0 is an MI250, and no Hopper: the numbers of the two makers are not comparable."""
    chosen = plan(device=amd(architecture)).precision
    assert chosen.value == precision
    assert chosen.reason.startswith(f"gfx{architecture[0]}.{architecture[1]} ")


@pytest.mark.parametrize(
    ("precision", "architecture"), [("fp8", (9, 0)), ("tf32", (9, 0)), ("fp8", (11, 0)), ("bf16", (10, 3))]
)
def test_what_an_amd_device_lacks_is_refused(precision, architecture):
    with pytest.raises(PrecisionError, match=rf"precision {precision} is not in the matrix cores of AMD GPU \(gfx"):
        plan({"precision": precision}, amd(architecture))


def test_the_preflight_compares_amds_architecture_with_the_build(monkeypatch):
    built = ["gfx90a", "gfx942"]
    assert compare_amd_architecture("MI300X", "gfx942:sramecc+:xnack-", built).state is State.OK
    refused = compare_amd_architecture("MI100", "gfx908:sramecc+", built)
    assert refused.state is State.FAILED
    assert "MI100 is gfx908, this torch is built for gfx90a, gfx942" in refused.message
    monkeypatch.setattr("torch.version.hip", "6.4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no AMD device" in check_device().message
