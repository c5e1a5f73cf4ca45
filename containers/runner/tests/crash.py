"""A disk that forgets: what a crash leaves at any moment of a save, as far as POSIX promises anything.

The calls of `os` that sync or change names are watched. Before and after each, the tree is pictured twice: with the
names that were synced, and with all names as they stand, since a file system may write names early. In both a file
has the content of its last fsync; what was never synced is lost.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WATCHED = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


@dataclass
class Image:
    """What a crash at one moment leaves: files by relative path. `promised` was reported saved before."""

    moment: str
    files: dict[str, bytes]
    promised: int

    def write(self, root: Path) -> None:
        for name, content in self.files.items():
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


@dataclass
class ForgetfulDisk:
    """Watches one directory. `promise` is told each step that was reported saved.

    A sync of what `ignores` names is as one that was never asked for.
    """

    root: Path
    ignores: Callable[[Path], bool] = lambda _path: False
    images: list[Image] = field(default_factory=list)
    promised: int = -1
    _content: dict[int, bytes] = field(default_factory=dict)  # by inode: what the last fsync made durable
    _names: dict[int, dict[str, int]] = field(default_factory=dict)  # by inode of a directory: its durable names
    _kept: dict[int, int] = field(default_factory=dict)  # open descriptors that keep inodes from being used again

    def promise(self, step: int) -> None:
        self.promised = step

    @contextmanager
    def watching(self) -> Iterator["ForgetfulDisk"]:
        originals = {name: getattr(os, name) for name in WATCHED}
        self._learn_names(self.root)
        for name, original in originals.items():
            setattr(os, name, self._watch(name, original))
        try:
            yield self
        finally:
            for name, original in originals.items():
                setattr(os, name, original)
            for descriptor in self._kept.values():
                os.close(descriptor)

    def _watch(self, name, original):
        def call(*arguments, **named):
            self._picture(f"before {name} {arguments}")
            result = original(*arguments, **named)
            if name == "fsync":
                self._note_synced(arguments[0])
            self._picture(f"after {name} {arguments}")
            return result

        return call

    def _note_synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if not path.is_relative_to(self.root) or self.ignores(path):
            return
        found = os.stat(descriptor)
        self._keep(path, found.st_ino)
        if stat.S_ISDIR(found.st_mode):
            self._learn_names(path)
        else:
            self._content[found.st_ino] = path.read_bytes()

    def _learn_names(self, directory: Path) -> None:
        self._keep(directory, directory.stat().st_ino)
        self._names[directory.stat().st_ino] = {path.name: path.stat().st_ino for path in directory.iterdir()}
        for path in directory.iterdir():
            self._keep(path, path.stat().st_ino)

    def _keep(self, path: Path, inode: int) -> None:
        if inode not in self._kept:
            self._kept[inode] = os.open(path, os.O_RDONLY)

    def _picture(self, moment: str) -> None:
        synced: dict[str, bytes] = {}
        self._walk_synced(self.root.stat().st_ino, "", synced)
        current: dict[str, bytes] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            try:
                inode = path.stat().st_ino
            except FileNotFoundError:
                continue  # a background thread has moved on
            if path.is_dir():
                current[name + "/"] = b""
            else:
                current[name] = self._content.get(inode, b"")
        for kind, files in (("synced names", synced), ("early names", current)):
            if not self.images or self.images[-1].files != files:
                self.images.append(Image(f"{moment}, {kind}", files, self.promised))

    def _walk_synced(self, inode: int, prefix: str, files: dict[str, bytes]) -> None:
        for name, child in self._names.get(inode, {}).items():
            if child in self._names or Path(f"/proc/self/fd/{self._kept.get(child, -1)}").is_dir():
                files[f"{prefix}{name}/"] = b""
                self._walk_synced(child, f"{prefix}{name}/", files)
            else:
                files[prefix + name] = self._content.get(child, b"")
