"""Prepared roots as images: listed by digest, brought in an archive, removed when no sandbox on this host has them.

An archive is a tar ball of one root's directory, made on a host with the same Python; there are no registries of them.
"""

import hashlib
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import IO, Any, NoReturn

from gateway.engines.bubblewrap.errors import image_not_found, one_line, store_failed
from gateway.engines.bubblewrap.host_files import may_lend
from gateway.engines.bubblewrap.records import read_json
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.image_store import PackageFiles, StoredImage, files_below, import_failed, refuse_in_use
from gateway.engines.interface import Image, Progress
from gateway.errors import EngineError
from gateway.removal import remove_tree

_UNPACK_SECONDS = 3600
_HINT = "'tar -C ROOTS/root-… -cz .' on a host like this one makes an archive of a root"
_HOST_PACKAGES = ("var/lib/dpkg/status", "etc/os-release", "usr/lib/os-release")


class RootStore:
    """The images of one directory of prepared roots."""

    is_self_contained = False

    def __init__(self, roots: PreparedRoots) -> None:
        self._roots = roots

    def all(self) -> list[StoredImage]:
        return [
            StoredImage(root.digest, self._roots.names_of(place), root.labels, _size(self._roots.directory / place))
            for place, root in self._roots.all()
        ]

    def pull(self, reference: str, progress: Progress) -> NoReturn:  # noqa: ARG002 - there is nothing to show
        raise EngineError(
            "image.pull-failed",
            f"cannot pull {one_line(reference)}: bubblewrap has no registries, its images stand on the host's own /usr",
            "'devgw image build' makes one here, 'devgw image import' takes one of a like host",
        )

    def load(self, archive: IO[bytes], progress: Progress) -> Image:
        """Unpack with tar(1), which lets no name or link lead out, and drops owners and set-uid bits."""
        directory = self._roots.directory
        draft: Path | None = None
        progress("unpacking the archive")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".import-", dir=directory))
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".archive-") as whole:
                shutil.copyfileobj(archive, whole)
                whole.flush()
                digest = _digest_of(whole)
                _unpack(Path(whole.name), draft)
            manifest = _manifest_of(draft)
            if known := self._roots.place_of_digest(digest):
                found = dict(self._roots.all())[known]
                return Image(digest, digest, found.labels)
            place = f"root-{secrets.token_hex(6)}"
            (draft / "root.json").unlink()
            draft.chmod(0o755)
            draft.rename(directory / place)
            try:
                self._roots.write(place, {**manifest, "digest": digest})
            except OSError:
                remove_tree(directory / place)  # nobody could find it to remove it
                raise
        except OSError as exc:
            raise import_failed(str(exc), "is there room on the disk?") from exc
        finally:
            if draft is not None:
                remove_tree(draft)
        return Image(digest, digest, dict(manifest.get("labels", {})))

    def name(self, digest: str, reference: str) -> None:
        place = self._place(digest)
        try:
            self._roots.name(reference, place)
        except OSError as exc:
            raise store_failed(f"name {reference}", exc) from exc

    def remove(self, digest: str) -> None:
        """Refuse while a process of this host has the root mounted, whichever gateway started it."""
        place = self._place(digest)
        users = _processes_with(place)
        if users:
            refuse_in_use(digest, f"the processes {', '.join(users[:5])} of a sandbox")
        try:
            self._roots.hide(place)
            remove_tree(self._roots.directory / place)  # before anything is written: there may be no room for that
            self._roots.forget(place)
        except OSError as exc:
            raise store_failed(f"remove {digest[:19]}", exc) from exc

    def package_files(self, digest: str, is_wanted: Callable[[str], bool]) -> PackageFiles:
        """Yield the root's own files, and of the host's what is lent to it."""
        root = self._roots.directory / self._place(digest)
        host = (
            (name, Path("/", name).read_bytes())
            for name in _HOST_PACKAGES
            if is_wanted(name) and Path("/", name).is_file()
        )
        own = files_below(root / "opt" / "devgw", is_wanted, "opt/devgw/")
        yield from chain(host, own, files_below(root / "tree", is_wanted))

    def _place(self, digest: str) -> str:
        place = self._roots.place_of_digest(digest)
        if place is None:
            raise image_not_found(digest)
        return place


def _unpack(archive: Path, folder: Path) -> None:
    command = ["tar", "-x", "-a", "-f", str(archive), "-C", str(folder), "--no-same-owner", "--no-same-permissions"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_UNPACK_SECONDS, check=False)
    except FileNotFoundError as exc:
        raise import_failed("tar is not installed", "'apt-get install tar'") from exc
    except subprocess.TimeoutExpired as exc:
        raise import_failed("unpacking took more than an hour", _HINT) from exc
    if done.returncode != 0:
        raise import_failed(one_line(done.stderr or "tar failed"), _HINT)


def _manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of an unpacked root, which must stand in the folder itself as a plain file."""
    manifest = folder / "root.json"
    if manifest.is_symlink() or not manifest.is_file():
        raise import_failed("there is no root.json in it", _HINT)
    try:
        found = read_json(manifest)
    except json.JSONDecodeError as exc:
        raise import_failed(f"its root.json is no JSON: {exc}", _HINT) from exc
    if not isinstance(found, dict) or not isinstance(found.get("command"), list) or not _is_own(folder, "tree"):
        raise import_failed("its root.json is not that of a prepared root", _HINT)
    for source, _target in found.get("binds", []):
        if not (may_lend(source) if source.startswith("/") else _is_own(folder, source)):
            raise import_failed(f"its root.json wants {one_line(source)}, which is no image's to show", _HINT)
    for path in found.get("needs", []):
        if not Path(path).exists():
            raise import_failed(
                f"it needs {path}, which this host has not", "import it on a host like the one it is of"
            )
    return found


def _is_own(folder: Path, name: str) -> bool:
    """Say whether something is a directory or file within the folder, by no link on the way."""
    place = folder / name
    return place.exists() and place.resolve() == folder.resolve() / name


def _digest_of(archive: IO[bytes]) -> str:
    archive.seek(0)
    return f"sha256:{hashlib.file_digest(archive, 'sha256').hexdigest()}"  # type: ignore[arg-type]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _processes_with(place: str) -> list[str]:
    """Return the processes in whose mount namespace the root is, by its directory's name, which is random."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{place}/" in (process / "mountinfo").read_text(errors="replace"):
                found.append(process.name)
        except OSError:
            continue  # it ended, or is not ours to read
    return found
