"""The one grammar of durations and sizes: `90m`, `1h30m`, `7d`, `16GiB`, `1.5TB`. Settings and policies share it.

A bare number is refused here: who reads a policy must not have to guess its unit.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PART = re.compile(r"([0-9]{1,9})([smhdw])")
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]i?B)")


def parse_duration(text: object) -> int:
    """Return seconds; parts are added up. Raises: ValueError."""
    parts = _PART.findall(text) if isinstance(text, str) and text.isascii() else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 90m, 8h, 1h30m or 7d")
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def parse_size(text: object) -> int:
    """Return bytes, rounded down. Raises: ValueError."""
    match = _SIZE.fullmatch(text.strip()) if isinstance(text, str) and text.isascii() else None
    if match is None:
        raise ValueError(f"{text!r} is not a size: write 16GiB, 512MiB or 500MB")
    whole, _, part = match[1].partition(".")
    factor = _BYTES[match[2]]
    return int(whole) * factor + (int(part) * factor // 10 ** len(part) if part else 0)


def show_duration(seconds: int) -> str:
    """Write seconds in the largest unit that divides them."""
    unit = next((unit for unit in ("d", "h", "m") if seconds % _SECONDS[unit] == 0 and seconds), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def show_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that divides them."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if size_bytes % _BYTES[unit] == 0 and size_bytes), "")
    return f"{size_bytes // _BYTES[unit]}{unit}" if unit else f"{size_bytes}B"


def show_about(size_bytes: int) -> str:
    """Write bytes as people write them, rounded: `16GiB`, `1.5GiB`."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if size_bytes >= _BYTES[unit]), "")
    return f"{size_bytes / _BYTES[unit]:.1f}".removesuffix(".0") + unit if unit else f"{size_bytes}B"


Duration = Annotated[int, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
