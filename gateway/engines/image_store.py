"""What an engine that keeps images promises: bring one, remove one, list all by digest, and show what is inside.

Building is `image_builder`'s; which image is used where is decided in `images/`.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, Protocol

from gateway.engines.interface import Image, Progress
from gateway.errors import ConflictError, EngineError

PackageFiles = Iterator[tuple[str, bytes]]
"""Files in which package managers write down what is installed, by their path inside."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on this host: every name it has, and its bytes on the disk, shared layers included."""

    digest: str
    names: tuple[str, ...]
    labels: dict[str, str]
    size_bytes: int = 0


class ImageStore(Protocol):
    """The images of one engine. Calls block and raise EngineError where nothing better is named."""

    is_self_contained: bool
    """Whether what is inside an image never changes; a prepared root has the host's packages, which do."""

    def all(self) -> list[StoredImage]:
        """Return every image, nameless ones too, whoever made it."""

    def pull(self, reference: str, progress: Progress) -> Image:
        """Bring an image from a registry. Raises: EngineError `image.pull-failed`."""

    def load(self, archive: IO[bytes], progress: Progress) -> Image:
        """Bring an image from an archive. Raises: EngineError `image.import-failed`."""

    def name(self, digest: str, reference: str) -> None:
        """Give an image one more name, taking it from the image that had it."""

    def remove(self, digest: str) -> None:
        """Remove an image with all its names. Raises: ConflictError `image.in-use`, when the engine runs it."""

    def package_files(self, digest: str, is_wanted: Callable[[str], bool]) -> PackageFiles:
        """Yield the files inside whose path, without a leading slash, is wanted. Nothing is run."""


def refuse_in_use(digest: str, by: str) -> NoReturn:
    """Say that an image cannot go yet. Raises: ConflictError `image.in-use`."""
    raise ConflictError("image.in-use", f"the image {digest[:19]} is in use by {by}", "'devgw image show' says by whom")


def import_failed(why: str, hint: str) -> EngineError:
    """Say that an archive holds no image of this engine."""
    return EngineError("image.import-failed", f"no image came of the archive: {why}", hint)


def files_below(root: Path, is_wanted: Callable[[str], bool], prefix: str = "") -> PackageFiles:
    """Yield wanted files of a directory tree, by their path below `prefix`; links are not followed."""
    for directory, _folders, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            inside = f"{prefix}{path.relative_to(root)}"
            if is_wanted(inside) and path.is_file() and not path.is_symlink():
                yield inside, path.read_bytes()
