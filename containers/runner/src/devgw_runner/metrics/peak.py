"""The peak of a device and the share of it that a run uses (MFU).

Dense peaks in TFLOP/s from the maker's data sheets. A MIG slice has the share of its multiprocessors.
"""

import re
from dataclasses import dataclass

from devgw_runner.plan.facts import DeviceFacts


@dataclass(frozen=True)
class Peak:
    """A whole device: its multiprocessors and dense TFLOP/s by precision."""

    multiprocessors: int
    half: float  # bf16 and fp16
    tf32: float
    fp32: float
    fp8: float = 0.0

    def at(self, precision: str) -> float:
        by_name = {
            "bf16": self.half,
            "fp16": self.half,
            "tf32": self.tf32,
            "fp32": self.fp32,
            "fp8": self.fp8,
        }
        return by_name[precision]


# Dense, without sparsity; half and fp8 with fp32 accumulation, which is what training uses. The longest name that
# stands in the device's own counts. Each line's sheet is named in docs/reference/peaks.md.
PEAKS: dict[str, Peak] = {
    "B200": Peak(148, 2250.0, 1125.0, 75.0, 4500.0),
    "GH200": Peak(132, 989.4, 494.7, 66.9, 1978.9),
    "H200 NVL": Peak(132, 835.5, 417.5, 60.0, 1670.5),
    "H200": Peak(132, 989.4, 494.7, 66.9, 1978.9),
    "H100 NVL": Peak(132, 835.5, 417.5, 60.0, 1670.5),
    "H100 PCIe": Peak(114, 756.0, 378.0, 51.2, 1513.0),
    "H100": Peak(132, 989.4, 494.7, 66.9, 1978.9),
    "H20": Peak(78, 148.0, 74.0, 44.0, 296.0),
    "A100": Peak(108, 312.0, 156.0, 19.5),
    "A40": Peak(84, 149.7, 74.8, 37.4),
    "A30": Peak(56, 165.0, 82.5, 10.3),
    "A10G": Peak(80, 70.0, 35.0, 35.0),
    "A10": Peak(72, 125.0, 62.5, 31.2),
    "L40S": Peak(142, 362.0, 183.0, 91.6, 733.0),
    "L40": Peak(142, 181.0, 90.5, 90.5, 362.0),
    "L20": Peak(92, 119.5, 59.8, 59.8, 239.0),
    "L4": Peak(58, 121.0, 60.0, 30.3, 242.5),
    "V100S": Peak(80, 130.0, 16.4, 16.4),
    "V100-PCIE": Peak(80, 112.0, 14.0, 14.0),
    "V100": Peak(80, 125.0, 15.7, 15.7),
    "T4": Peak(40, 65.0, 8.1, 8.1),
    # AMD's devices as torch sees them: of an MI250 and an MI250X each of the two dies is one.
    "MI325X": Peak(304, 1307.4, 653.7, 163.4, 2614.9),
    "MI300X": Peak(304, 1307.4, 653.7, 163.4, 2614.9),
    "MI300A": Peak(228, 980.6, 490.3, 122.6, 1961.2),
    "MI250X": Peak(110, 191.5, 47.9, 47.9),
    "MI250": Peak(104, 181.0, 45.3, 45.3),
    "MI210": Peak(104, 181.0, 45.3, 45.3),
    "RTX 6000 Ada": Peak(142, 364.2, 182.1, 91.1, 728.5),
    "RTX A6000": Peak(84, 154.8, 77.4, 38.7),
    "RTX 5090": Peak(170, 209.5, 104.8, 104.8, 419.0),
    "RTX 4090": Peak(128, 165.2, 82.6, 82.6, 330.3),
    "RTX 3090": Peak(82, 71.0, 35.6, 35.6),
}


def find_peak(device_name: str) -> Peak | None:
    """Return the entry whose name stands whole in the device's: an A10G is no A10, an L40S no L40."""
    found = [name for name in PEAKS if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", device_name)]
    return PEAKS[max(found, key=len)] if found else None


def peak_flops(device: DeviceFacts, precision: str, override_tflops: float | None = None) -> float | None:
    """Return the peak in FLOP/s of this device or slice, None where it is unknown."""
    if override_tflops is not None:
        return override_tflops * 1e12
    peak = find_peak(device.name)
    if device.kind != "cuda" or peak is None or not peak.at(precision):
        return None
    share = min(1.0, device.multiprocessors / peak.multiprocessors) if device.is_mig else 1.0
    return peak.at(precision) * 1e12 * share


def model_flops_utilisation(
    samples_per_second: float, flops_per_sample: float | None, peak: float | None
) -> float | None:
    """Return the used share of the peak, per device."""
    if not flops_per_sample or not peak:
        return None
    return samples_per_second * flops_per_sample / peak
