"""AMD's GPUs, as the kernel's amdgpu driver shows them in sysfs: no library of ROCm is needed on the host.

`/sys/class/kfd/kfd/topology/nodes` lists what computes (ROCm's own tools read the same), and the render
node of each leads to its product's name and memory. Who holds them is the work of `leases`.
"""

from collections import Counter
from pathlib import Path

from gateway.gpus.reading import Reading
from gateway.model import Gpu, GpuUuid

_TOPOLOGY = Path("class/kfd/kfd/topology/nodes")
_VENDOR = 0x1002
_LOCAL_HEAPS = frozenset({1, 2})
"""HSA_MEM_HEAP_TYPE_FB_PUBLIC and FB_PRIVATE (hsakmttypes.h): memory of the GPU itself."""


class AmdInventory:
    """Reads the topology anew each time: a GPU that was reset or partitioned is another one afterwards."""

    def __init__(self, sysfs: Path = Path("/sys"), *, is_expected: bool = True) -> None:
        self._sysfs = sysfs
        self._is_expected = is_expected

    def read(self) -> Reading:
        """Return every GPU that can be told apart; the others are notes."""
        nodes = sorted((self._sysfs / _TOPOLOGY).glob("[0-9]*"), key=lambda node: int(node.name))
        if not nodes:
            return Reading("none", notes=(f"no AMD GPU: {self._sysfs / _TOPOLOGY} is not there",) * self._is_expected)
        found: list[Gpu] = []
        notes: list[str] = []
        for node in nodes:
            try:
                if gpu := self._gpu(node, str(len(found) + len(notes))):
                    found.append(gpu)
            except (OSError, ValueError) as exc:
                notes.append(f"AMD GPU of KFD node {node.name}: {_reason(exc)}")
        times = Counter(gpu.uuid for gpu in found)
        several = {uuid: count for uuid, count in times.items() if count > 1}
        notes += [
            f"AMD GPU {uuid} is there {count} times: partitions are not leased" for uuid, count in several.items()
        ]
        gpus = tuple(gpu for gpu in found if times[gpu.uuid] == 1)
        return Reading("amd" if gpus else "none", gpus, tuple(notes), self._driver_version())

    def _gpu(self, node: Path, index: str) -> Gpu | None:
        """Return one node's GPU; None for a processor. Raises: OSError, ValueError."""
        values = _properties(node / "properties")
        if int((node / "gpu_id").read_text()) == 0 or values.get("vendor_id", _VENDOR) != _VENDOR:
            return None
        unique = values.get("unique_id", 0)
        if unique <= 0 or unique >= 2**64:
            raise ValueError("it has no unique_id, so it cannot be told from another after a restart")
        device = self._sysfs / f"class/drm/renderD{values.get('drm_render_minor', 0)}/device"
        return Gpu(
            GpuUuid(f"GPU-{unique:016x}"),
            _name(device, values.get("gfx_target_version", 0)),
            _memory_bytes(device, node),
            index,
        )

    def _driver_version(self) -> str:
        """Return what the module says; the kernel's own has no version."""
        try:
            return (self._sysfs / "module/amdgpu/version").read_text().strip()
        except (OSError, ValueError):
            return ""


def _properties(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2}


def _name(device: Path, target: int) -> str:
    """Return the product's name, else what the compiler calls it: 90402 is gfx942."""
    try:
        name = (device / "product_name").read_text().strip()
    except (OSError, ValueError):
        name = ""
    if name:
        return name if name.upper().startswith("AMD") else f"AMD {name}"
    return f"AMD gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}" if target else "AMD GPU"


def _memory_bytes(device: Path, node: Path) -> int:
    try:
        return int((device / "mem_info_vram_total").read_text())
    except (OSError, ValueError):
        banks = [_properties(bank) for bank in sorted(node.glob("mem_banks/*/properties"))]
        return sum(bank.get("size_in_bytes", 0) for bank in banks if bank.get("heap_type") in _LOCAL_HEAPS)


def _reason(exc: Exception) -> str:
    return (exc.strerror or "it cannot be read") if isinstance(exc, OSError) else str(exc)
