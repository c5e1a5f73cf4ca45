"""The peak of a device and the share of it that a run uses (MFU).

Dense peaks in TFLOP/s from NVIDIA's data sheets. A MIG slice has the share of its multiprocessors.
"""

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


# Longest name first where one contains the other.
PEAKS: dict[str, Peak] = {
    "B200": Peak(148, 2250.0, 1125.0, 75.0, 4500.0),
    "H200": Peak(132, 989.4, 494.7, 66.9, 1978.9),
    "H100 PCIe": Peak(114, 756.0, 378.0, 51.2, 1513.0),
    "H100": Peak(132, 989.4, 494.7, 66.9, 1978.9),
    "A100": Peak(108, 312.0, 156.0, 19.5),
    "A30": Peak(56, 165.0, 82.5, 10.3),
    "L40S": Peak(142, 362.0, 183.0, 91.6, 733.0),
    "L4": Peak(58, 121.0, 60.0, 30.3, 242.5),
    "A10": Peak(72, 125.0, 62.5, 31.2),
    "V100": Peak(80, 125.0, 15.7, 15.7),
    "T4": Peak(40, 65.0, 8.1, 8.1),
    "RTX 4090": Peak(128, 165.2, 82.6, 82.6, 330.3),
    "RTX 3090": Peak(82, 71.0, 35.6, 35.6),
}


def peak_flops(device: DeviceFacts, precision: str, override_tflops: float | None = None) -> float | None:
    """Return the peak in FLOP/s of this device or slice, None where it is unknown."""
    if override_tflops is not None:
        return override_tflops * 1e12
    peak = next((peak for name, peak in PEAKS.items() if name in device.name), None)
    if device.kind != "cuda" or peak is None or not peak.at(precision):
        return None
    share = min(1.0, device.multiprocessors / peak.multiprocessors)
    return peak.at(precision) * 1e12 * share


def model_flops_utilisation(
    samples_per_second: float, flops_per_sample: float | None, peak: float | None
) -> float | None:
    """Return the used share of the peak, per device."""
    if not flops_per_sample or not peak:
        return None
    return samples_per_second * flops_per_sample / peak
