"""Prepared roots: what environments have as software, made once (`software_build`) and shared read-only by all of them.

A root is small files of its own, a Python environment, and the host's /usr beside them; its manifest is `root.json`.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.engines.bubblewrap.errors import image_not_found, image_outdated
from gateway.engines.bubblewrap.records import read_json, write_json
from gateway.engines.interface import IMAGE_LABEL_PREFIX, Image


@dataclass(frozen=True, slots=True)
class PreparedRoot:
    """One prepared root.

    `tree` holds its small files; `binds` are (source, target) of what is seen as it is; `hidden` are directories of the
    host's that are empty inside; `needs` are files of the host it was made for.
    """

    digest: str
    tree: Path
    command: tuple[str, ...]
    variables: dict[str, str]
    labels: dict[str, str]
    binds: tuple[tuple[Path, str], ...] = ()
    hidden: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> "PreparedRoot | None":
        """Read a manifest; sources that are not absolute lie beside it."""
        found = read_json(directory / "root.json")
        if found is None:
            return None
        return cls(
            digest=found["digest"],
            tree=directory / "tree",
            command=tuple(found["command"]),
            variables=found.get("variables", {}),
            labels=found.get("labels", {}),
            binds=tuple((directory / source, target) for source, target in found.get("binds", [])),
            hidden=tuple(found.get("hidden", [])),
            needs=tuple(found.get("needs", [])),
        )


class PreparedRoots:
    """The roots in one directory, by name. Several gateways may share it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, reference: str) -> PreparedRoot:
        """Return a root by one of its names. Raises: NotFoundError `image.not-found`, `image.outdated`."""
        name = self._names().get(reference) or self.place_of_digest(reference)
        root = PreparedRoot.read(self.directory / name) if name else None
        if root is None:
            raise image_not_found(reference)
        for path in (*map(Path, root.needs), *(source for source, _ in root.binds)):
            if not path.exists():
                raise image_outdated(reference, f"{path} is gone")
        return root

    def all(self) -> list[tuple[str, PreparedRoot]]:
        """Return every finished root with the name of its directory, nameless and outdated ones included."""
        places = sorted(path.parent for path in self.directory.glob("[!.]*/root.json"))
        found = [(place.name, PreparedRoot.read(place)) for place in places]
        return [(name, root) for name, root in found if root is not None]

    def place_of_digest(self, digest: str) -> str | None:
        """Return the name of the directory of the root with this digest."""
        if not digest.startswith("sha256:"):
            return None
        return next((name for name, root in self.all() if root.digest == digest), None)

    def names_of(self, place: str) -> tuple[str, ...]:
        """Return the references that lead to a directory."""
        return tuple(sorted(reference for reference, name in self._names().items() if name == place))

    def hide(self, place: str) -> None:
        """Take away a root's manifest: from now on it cannot be found, whatever names lead to it. Raises: OSError."""
        (self.directory / place / "root.json").unlink(missing_ok=True)

    def forget(self, place: str) -> None:
        """Take all references from a directory. Raises: OSError."""
        with self._held():
            names = {reference: name for reference, name in self._names().items() if name != place}
            write_json(self.directory / "names.json", names)

    def images(self) -> list[Image]:
        """List every name with devgw's labels, outdated roots included."""
        found = [(reference, PreparedRoot.read(self.directory / name)) for reference, name in self._names().items()]
        return [
            Image(reference, root.digest, root.labels)
            for reference, root in found
            if root is not None and any(label.startswith(IMAGE_LABEL_PREFIX) for label in root.labels)
        ]

    def name(self, reference: str, name: str) -> None:
        """Give the root in the directory `name` one more reference, taking it from the root that had it."""
        with self._held():
            write_json(self.directory / "names.json", {**self._names(), reference: name})

    def place_of(self, reference: str) -> str | None:
        """Return the name of the directory a reference leads to."""
        return self._names().get(reference)

    def write(self, name: str, manifest: dict[str, Any]) -> None:
        """Finish a root: from now on it can be found."""
        write_json(self.directory / name / "root.json", {"version": 1, **manifest})

    def _names(self) -> dict[str, str]:
        return read_json(self.directory / "names.json") or {}

    @contextmanager
    def _held(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
