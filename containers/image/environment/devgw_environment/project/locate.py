"""Where a project's `devcontainer.json` is, and its bytes: a regular file inside the workspace, and no large one."""

import itertools
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from devgw_environment.project.errors import ProjectError
from devgw_environment.project.text import shown

MOST_BYTES = 64 * 1024
"""Files of real projects have a few KiB; a parser in Python takes seconds for this many bytes at worst."""
MOST_FOLDERS = 500
FOLDER, FILE, PLAIN_FILE = ".devcontainer", "devcontainer.json", ".devcontainer.json"


@dataclass(frozen=True)
class ProjectFile:
    """A project's folder and its file."""

    folder: Path
    path: Path

    @property
    def label(self) -> str:
        """The file's name as people are told it."""
        return shown(self.path)


def list_files(folder: Path) -> list[ProjectFile]:
    """The files of one project in the order of the specification: the folder's, the plain one, then named ones."""
    fixed = [folder / FOLDER / FILE, folder / PLAIN_FILE]
    named = [name / FILE for name in _folders(folder / FOLDER)]
    return [ProjectFile(folder, path) for path in (*fixed, *named) if os.path.lexists(path)]


def list_projects(workspace: Path) -> list[ProjectFile]:
    """Every file of the workspace itself, and of the folders directly in it."""
    return [file for folder in (workspace, *_folders(workspace)) for file in list_files(folder)]


def choose_file(folder: Path) -> ProjectFile | None:
    """The file of a project: the first of the two fixed places, else the only named one.

    Raises:
        ProjectError: there are several named ones, and nothing says which.
    """
    files = list_files(folder)
    if not files:
        return None
    is_fixed = files[0].path in {folder / FOLDER / FILE, folder / PLAIN_FILE}
    if not is_fixed and len(files) > 1:
        names = ", ".join(shown(file.path.parent.name, 40) for file in files[:8])
        raise ProjectError(
            f"{shown(folder)} has several dev containers ({names})",
            f"devgw-project use {shown(files[0].path.parent)}",
        )
    return files[0]


def find_file(workspace: Path, named: Path) -> ProjectFile:
    """The file that a person means by a project's folder, by `.devcontainer/NAME`, or by the file itself.

    Raises:
        ProjectError: it is not in the workspace, or there is none.
    """
    place = Path(os.path.normpath(workspace / named))
    if not place.is_relative_to(workspace):
        raise ProjectError(f"{shown(named)} is not in {workspace}", f"a project is a folder in {workspace}")
    if place.name in {FILE, PLAIN_FILE}:
        place = place.parent
    if place.name == FOLDER:
        place = place.parent
    if place.parent.name == FOLDER and os.path.lexists(place / FILE):
        return ProjectFile(place.parent.parent, place / FILE)
    found = choose_file(place)
    if found is None:
        raise ProjectError(f"{shown(place)} has no {FILE}", f"it is looked for in {FOLDER}/ and as {PLAIN_FILE}")
    return found


def read_file(file: ProjectFile, workspace: Path) -> bytes:
    """The bytes of a project's file.

    A link may lead to another place of the workspace, and nowhere else: a cloned project shall not choose which of the
    user's files is read. A pipe or device is not waited for.

    Raises:
        ProjectError: it is no regular file of the workspace, is too large or cannot be read.
    """
    try:
        real = file.path.resolve(strict=True)
        if not real.is_relative_to(workspace.resolve()):
            raise ProjectError(f"{file.label} is a link out of the workspace", "put the file itself there")
        content = _read_regular(real)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ProjectError(f"{file.label} cannot be read: {_reason(error)}", "is it a file of your own?") from error
    if content is None:
        raise ProjectError(f"{file.label} is not a regular file", "put the file itself there")
    if len(content) > MOST_BYTES:
        raise ProjectError(f"{file.label} is larger than {MOST_BYTES // 1024} KiB", "put long commands into a script")
    return content


def _read_regular(path: Path) -> bytes | None:
    """At most one byte more than a file may have; None where it is a pipe, a folder or a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry) for entry in itertools.islice(entries, MOST_FOLDERS) if entry.is_dir()]
    except OSError:
        return []
    return sorted(found)


def _reason(error: Exception) -> str:
    return (error.strerror or "unreadable") if isinstance(error, OSError) else "its links lead in a circle"
