"""Read AMD GPUs' state from the files of the kernel's amdgpu driver: memory, utilisation, temperature, power.

No ROCm library is needed. The files: docs.kernel.org/gpu/amdgpu/driver-misc.html and thermal.html. What a card does
not tell is left out, never guessed.
"""

import os
from pathlib import Path

from devgw_runner.metrics.state import GpuState

DRM = Path("/sys/class/drm")
# ROCr hides devices from all above it, HIP from its own programs (rocm.docs.amd.com, "GPU isolation techniques").
VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
AMD = "0x1002"  # PCI vendor id


def read_amd_gpus(drm: Path | None = None) -> list[GpuState]:
    """Return the state of every AMD GPU that this process may see, in the order of the PCI bus."""
    devices = {card.resolve() for card in (drm or DRM).glob("card*/device") if _text(card / "vendor") == AMD}
    found = [state for device in sorted(devices) if (state := _read(device)) is not None]
    for name in VISIBLE:
        found = _visible(found, os.environ.get(name))
    return found


def _read(device: Path) -> GpuState | None:
    total, used = _number(device / "mem_info_vram_total"), _number(device / "mem_info_vram_used")
    if total is None or used is None:
        return None
    sensors = next(iter(sorted(device.glob("hwmon/hwmon*"))), device / "hwmon")
    temperature = _number(sensors / "temp1_input")  # in thousandths of a degree
    power = _number(sensors / "power1_average")  # in millionths of a watt; newer cards have the present value only
    power = _number(sensors / "power1_input") if power is None else power
    identity = _text(device / "unique_id").removeprefix("0x")
    return GpuState(
        name=_text(device / "product_name") or "AMD GPU",
        uuid=f"GPU-{identity}" if identity else f"PCI-{device.name}",
        memory_used_bytes=used,
        memory_total_bytes=total,
        utilisation_percent=_number(device / "gpu_busy_percent"),
        temperature_celsius=None if temperature is None else temperature // 1000,
        power_watts=None if power is None else power / 1e6,
    )


def _visible(gpus: list[GpuState], setting: str | None) -> list[GpuState]:
    """Numbers or UUIDs, up to the first that is unknown; an empty value hides all."""
    if setting is None:
        return gpus
    chosen: list[GpuState] = []
    for entry in (part.strip() for part in setting.split(",")):
        matching = [gpu for gpu in gpus if gpu.uuid == entry]
        if entry.isdigit() and int(entry) < len(gpus):
            matching = [gpus[int(entry)]]
        if len(matching) != 1 or matching[0] in chosen:
            break
        chosen.append(matching[0])
    return chosen


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # not there, or the card sleeps
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
