"""Volumes that several users share, as a role names them: `shared = {project-x = "rw", corpora = "ro"}`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator

Right = Literal["ro", "rw"]
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True, order=True)
class SharedVolume:
    """One of them, and whether it may be written to."""

    name: str
    right: Right

    @property
    def is_writable(self) -> bool:
        return self.right == "rw"

    def __str__(self) -> str:
        return f"{self.name} ({self.right})"


def parse_shared(value: object) -> tuple[SharedVolume, ...]:
    """Read a table of names and rights. Raises: ValueError."""
    if isinstance(value, tuple) and all(isinstance(entry, SharedVolume) for entry in value):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("write a table such as {project-x = 'rw', corpora = 'ro'}")  # noqa: TRY004 - pydantic's
    return tuple(_parse(name, right) for name, right in value.items())


def strongest(volumes: Iterable[SharedVolume]) -> tuple[SharedVolume, ...]:
    """Return each name once, by name; one that may be written to anywhere may be."""
    rights: dict[str, Right] = {}
    for volume in volumes:
        rights[volume.name] = "rw" if volume.is_writable else rights.get(volume.name, "ro")
    return tuple(SharedVolume(name, right) for name, right in sorted(rights.items()))


def _parse(name: object, right: object) -> SharedVolume:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a shared volume; write up to 31 of a-z, 0-9 and '-', a letter first")
    if right == "ro":
        return SharedVolume(name, "ro")
    if right == "rw":
        return SharedVolume(name, "rw")
    raise ValueError(f"{name} = {right!r}: write 'ro' to read, 'rw' to read and write")


Shared = Annotated[tuple[SharedVolume, ...], BeforeValidator(parse_shared)]
