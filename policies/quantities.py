"""Durations and sizes as people write them: `90m`, `8h`, `7d`, `16GiB`. A bare number is refused."""

import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_SIZE = re.compile(r"([0-9]{1,9})([KMGT]iB)")


def parse_duration(text: object) -> int:
    """Return seconds. Raises: ValueError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a duration is a number and a unit: '90m', '8h', '7d'")
    return int(match[1]) * _SECONDS[match[2]]


def parse_size(text: object) -> int:
    """Return bytes. Raises: ValueError."""
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("a size is a number and a unit: '512MiB', '16GiB'")
    return int(match[1]) * _BYTES[match[2]]


def show_duration(seconds: int) -> str:
    """Write seconds in the largest unit that divides them."""
    unit = next((unit for unit in ("d", "h", "m") if seconds % _SECONDS[unit] == 0 and seconds), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def show_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that divides them."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if size_bytes % _BYTES[unit] == 0 and size_bytes), "")
    return f"{size_bytes // _BYTES[unit]}{unit}" if unit else f"{size_bytes}B"


Duration = Annotated[int, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
