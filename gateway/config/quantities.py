"""Sizes and durations of the settings: the grammar of `policies.quantities`, and plain numbers of bytes and seconds."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from policies import quantities


def parse_size(value: object) -> int:
    """Return bytes from `16GiB`, `500MB` or a number of bytes. Raises: ValueError."""
    if isinstance(value, int):
        return value
    text = str(value).strip()
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return quantities.parse_size(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a size: write 16GiB, 500MB or a number of bytes") from None


def parse_duration(value: object) -> int:
    """Return seconds from `90m`, `8h`, `1h30m`, `7d` or a number of seconds. Raises: ValueError."""
    return value if isinstance(value, int) else quantities.parse_duration(str(value).strip())


Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Duration = Annotated[int, BeforeValidator(parse_duration), Field(gt=0)]
