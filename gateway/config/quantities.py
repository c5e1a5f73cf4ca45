"""Sizes and durations as people write them: `16GiB`, `90m`."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B|B)?")
_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_DURATION = re.compile(r"(\d+)([smhd])")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> int:
    """Return bytes from `16GiB`, `500MB` or a number of bytes. Raises: ValueError."""
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size: write 16GiB, 500MB or a number of bytes")
    return int(float(match["number"]) * _SIZE_UNITS[match["unit"] or "B"])


def parse_duration(value: object) -> int:
    """Return seconds from `90m`, `8h`, `1h30m`, `7d` or a number of seconds. Raises: ValueError."""
    if isinstance(value, int):
        return value
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{value!r} is not a duration: write 90m, 8h, 1h30m or 7d")
    return sum(int(number) * _DURATION_UNITS[unit] for number, unit in parts)


Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Duration = Annotated[int, BeforeValidator(parse_duration), Field(gt=0)]
