"""Versions as tuples of numbers, and the tables of those that NVIDIA's parts require of each other."""

import re
from itertools import takewhile

Version = tuple[int, ...]

# The oldest driver that runs a CUDA major version by minor-version compatibility, Linux x86_64:
# docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVERS: dict[int, Version] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}

# The driver that came with each toolkit, Linux x86_64: docs.nvidia.com/cuda/cuda-toolkit-release-notes, table
# "CUDA Toolkit and Corresponding Driver Versions". Below it, PTX from that toolkit cannot be compiled.
TOOLKIT_DRIVERS: dict[Version, Version] = {
    (12, 0): (525, 60, 13), (12, 1): (530, 30, 2), (12, 2): (535, 54, 3), (12, 3): (545, 23, 6),
    (12, 4): (550, 54, 14), (12, 5): (555, 42, 2), (12, 6): (560, 28, 3), (12, 8): (570, 26),
    (12, 9): (575, 51, 3), (13, 0): (580, 65, 6), (13, 1): (590, 44, 1), (13, 2): (595, 45, 4),
}  # fmt: skip

# The first driver branch that knows a compute capability's major version, by NVIDIA's data-centre driver notes.
SILICON_BRANCHES: dict[int, Version] = {8: (450,), 9: (525,), 10: (570,), 12: (570,)}

# What a container could do to the host through an older toolkit, by NVIDIA's security bulletins 5582, 5616, 5659.
TOOLKIT_CVES: tuple[tuple[Version, str, str], ...] = (
    ((1, 16, 2), "CVE-2024-0132", "a container can reach the host's file system"),
    ((1, 17, 4), "CVE-2025-23359", "a container can reach the host's file system"),
    ((1, 17, 8), "CVE-2025-23266", "a container can run code on the host as root"),
)


def parse_version(text: str) -> Version | None:
    """Read the leading numbers of `535.86.05`, `1.17.8-rc.1` or `26.1.5+dfsg1`; None where there are none."""
    match = re.match(r"\s*v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def is_older(version: Version, than: Version) -> bool:
    """Compare as far as both go, so that `570` is not older than `570.26` and `12` not older than `12.8`."""
    pairs = list(zip(version, than, strict=False))
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return same < len(pairs) and pairs[same][0] < pairs[same][1]


def text_of(version: Version) -> str:
    """Write a version as NVIDIA does: a driver's parts behind the first have two digits."""
    first, *rest = version
    return ".".join([str(first), *(f"{part:02}" if first >= 100 else str(part) for part in rest)])
