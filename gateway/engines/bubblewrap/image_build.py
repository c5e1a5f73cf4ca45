"""Makes prepared roots: the image's own build scripts, run in a sandbox whose /opt/devgw becomes the root's.

The sources and their order are those of containers/image/Dockerfile; what its first stage installs, the host lends.
What is built, and under which name, is decided in `environments/image_build.py`.
"""

import hashlib
import json
import logging
import re
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gateway.engines.bubblewrap.build_sandbox import run_script
from gateway.engines.bubblewrap.errors import image_not_found
from gateway.engines.bubblewrap.host_files import SEARCH_PATH, HostFacts, find_host_facts, lay_out_tree
from gateway.engines.bubblewrap.records import read_json
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.engines.image_builder import BuildProgress, Progress
from gateway.errors import DevgwError, EngineError
from gateway.removal import remove_tree

_log = logging.getLogger(__name__)
_SCRIPTS = ("terminal_types.sh", "install_packages.sh", "install_own.sh")
_FROM = re.compile(r"FROM (\S+)\s*")
_COMMAND = ["/opt/devgw/bin/python", "-I", "-m", "devgw_environment", "init"]


class BubblewrapImageBuilder:
    """Builds into one directory of prepared roots."""

    def __init__(self, roots: PreparedRoots, bwrap: str) -> None:
        self._roots = roots
        self._bwrap = bwrap

    def has_image(self, tag: str) -> bool:
        """Whether a root of this name is there and fits the host as it is now."""
        try:
            self._roots.find(tag)
        except DevgwError:
            return False
        return True

    def read_labels(self, image: str) -> dict[str, str]:
        """The labels of a root."""
        return dict(self._roots.find(image).labels)

    def name_image(self, image: str, tag: str) -> None:
        """Give a root one more name, taking it from the root that had it."""
        self._roots.name(tag, self._place(image))

    def read_file(self, image: str, path: str) -> bytes:
        """Read one file of a root that does not come from the host."""
        return (self._roots.directory / self._place(image) / path.lstrip("/")).read_bytes()

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str | None,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> str:
        """Make a root from a context; one whose Dockerfile is a single FROM labels the root it names.

        Raises:
            EngineError: `image.host-lacks`, or `image.build-failed` with the last lines of the failing step.
        """
        place = f"root-{secrets.token_hex(6)}"
        with self._unpacked(context) as folder:
            if base := _FROM.fullmatch((folder / "Dockerfile").read_text()):
                place = self._place(base[1])
                self._label(place, labels)
            else:
                self._make(place, folder, arguments, labels, progress)
        if tag:
            self._roots.name(tag, place)
        return place

    def _make(
        self, place: str, folder: Path, arguments: Mapping[str, str], labels: Mapping[str, str], progress: Progress
    ) -> None:
        steps = len(_SCRIPTS) + 1
        progress(BuildProgress(1, steps, f"Step 1/{steps} : what the host lends"))
        facts = find_host_facts()
        draft = self._roots.directory / f".{place}"
        places = {
            "/opt/devgw": draft / "opt" / "devgw",
            "/own": folder / "own",
            "/brought": folder / "brought",
            "/build": folder / "sources",
        }
        try:
            for path in places.values():
                path.mkdir(parents=True)
            lent = lay_out_tree(draft / "tree", folder / "rootfs")
            _arrange(folder, places["/build"])
            for step, script in enumerate(_SCRIPTS, start=2):
                progress(BuildProgress(step, steps, f"Step {step}/{steps} : {script}"))
                show = _shown_as(step, steps, progress)
                run_script(self._bwrap, script, places, facts, arguments, show)
            shutil.copytree(places["/own"], places["/opt/devgw"], dirs_exist_ok=True, symlinks=True)
            shutil.copytree(places["/brought"], draft / "tree", dirs_exist_ok=True, symlinks=True)
            draft.rename(self._roots.directory / place)
            self._roots.write(place, _manifest(lent, facts, labels, arguments))
        except OSError as exc:
            raise EngineError(
                "image.build-failed", f"cannot write the root: {exc}", "is there room on the disk?"
            ) from exc
        finally:
            _clear(draft)

    def _label(self, place: str, labels: Mapping[str, str]) -> None:
        manifest = read_json(self._roots.directory / place / "root.json") or {}
        self._roots.write(place, {**manifest, "labels": {**manifest.get("labels", {}), **labels}})

    def _place(self, image: str) -> str:
        """Return the directory of a root, named by reference or by what `build` returned."""
        place = self._roots.place_of(image) or image
        if not (self._roots.directory / place / "root.json").is_file():
            raise image_not_found(image)
        return place

    @contextmanager
    def _unpacked(self, context: IO[bytes]) -> Iterator[Path]:
        """Unpack a context beside the roots, and take it away again."""
        self._roots.directory.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".build-", dir=self._roots.directory))
        try:
            with tarfile.open(fileobj=context) as tar:
                _extract(tar, folder)
            folder.chmod(0o755)
            yield folder
        finally:
            _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what the scripts worked in; what cannot go is in nobody's way, and no reason for a build to fail."""
    try:
        remove_tree(folder)
    except OSError as exc:
        _log.warning("%s stays: %s", exc.filename or folder, exc.strerror)


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the plain files of a context, which has no other entries (`extractall` has no filters before 3.11.4)."""
    for member in tar:
        target = folder / member.name
        content = tar.extractfile(member)
        if content is None or ".." in target.parts or not target.is_relative_to(folder):
            raise EngineError("image.build-failed", f"{member.name[:80]!r} does not belong into a build context")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(member.mode & 0o755)


def _arrange(folder: Path, build: Path) -> None:
    """Lay the sources out as the Dockerfile's COPY lines do, in what the scripts see as /build."""
    for name in ("build", "trust"):
        for file in (folder / name).glob("*"):
            shutil.copy(file, build)
    for name in ("profiles", "wheelhouse", "environment", "runner"):
        if (folder / name).is_dir():
            (folder / name).rename(build / name)


def _manifest(
    lent: list[tuple[str, str]], facts: HostFacts, labels: Mapping[str, str], arguments: Mapping[str, str]
) -> dict[str, Any]:
    content = {
        "command": _COMMAND,
        "variables": {"PATH": SEARCH_PATH, "LANG": "C.UTF-8"},
        "labels": dict(labels),
        "binds": [*lent, ("opt/devgw", "/opt/devgw")],
        "hidden": [str(path) for path in facts.hidden],
        "needs": [str(facts.python)],  # a newer Python of the host's would not find the packages
    }
    told_apart = json.dumps([content, dict(arguments), secrets.token_hex(8)]).encode()
    return {"digest": f"sha256:{hashlib.sha256(told_apart).hexdigest()}", **content}


def _shown_as(step: int, steps: int, progress: Progress) -> Callable[[str], None]:
    return lambda line: progress(BuildProgress(step, steps, line))
