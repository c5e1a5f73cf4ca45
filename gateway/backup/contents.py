"""What a backup holds: the configuration and the state, but for what is made anew by itself or kept elsewhere."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.backup.manifest import CONFIG, STATE
from gateway.config import Settings

VOLATILE = frozenset(
    {
        "locks", "reserve", "duties.json", "sandboxes", "roots", "run", "run-directories", "proofs.jsonl",
        "throttle.jsonl", "volumes", "shared", "moved", "arrivals", "snapshots", "lost+found",
    }
)  # fmt: skip
"""Of the state directory: locks, what runs, images (built anew), bans (minutes), volumes, also shared ones and those
set aside."""
RECORDINGS = "recordings"
REPLACED = "replaced-"
RESTORING = ".restoring"
GATEWAYS = "gateways"
_OF_ENVIRONMENTS = "environments"
_INSIDE_CONFIGURATION = 3  # environments/USER/NAME/config


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file to be taken: its name in the backup, and where it is. `size` cuts a file that still grows."""

    name: str
    path: Path
    size: int | None = None


def configuration(settings: Settings) -> Iterator[Found]:
    """Yield the files of the configuration directory."""
    for path in _files(settings.config_dir, lambda _parts: True):
        yield Found(f"{CONFIG}/{path.relative_to(settings.config_dir)}", path)


def state(settings: Settings, database: Path | None, *, recordings: bool) -> Iterator[Found]:
    """Yield the files of the state directory; the journal and the database are taken by those who know them."""
    root = settings.state_dir
    journal = journal_in(settings).parts
    apart = {f"{database.name}{end}" for end in ("", "-wal", "-shm", "-journal")} if database is not None else set()

    def is_taken(parts: tuple[str, ...]) -> bool:
        first = parts[0]
        if first in VOLATILE or first.startswith((REPLACED, RESTORING)) or parts[: len(journal)] == journal:
            return False
        if first == GATEWAYS and is_elsewhere(settings):  # of before it was moved
            return False
        if first == RECORDINGS:
            return recordings
        if first == _OF_ENVIRONMENTS and len(parts) > _INSIDE_CONFIGURATION:
            return parts[_INSIDE_CONFIGURATION] == "config"
        return len(parts) > 1 or first not in apart

    for path in _files(root, is_taken):
        yield Found(f"{STATE}/{path.relative_to(root)}", path)


def journal_in(settings: Settings) -> Path:
    """Return where a backup has the journal within the state: where gateways share a database, below its name."""
    own = Path(GATEWAYS) / settings.instance if settings.instance else Path()
    return own / settings.journal_dir.name


def is_elsewhere(settings: Settings) -> bool:
    """Say whether the gateways' directory is not in the state directory."""
    return not settings.gateways_dir.is_relative_to(settings.state_dir)


def own_elsewhere(settings: Settings) -> Iterator[Found]:
    """Yield what is this gateway's alone, beside its journal, where the gateways' directory is not in the state."""
    if not (settings.instance and is_elsewhere(settings)):
        return
    for path in _files(settings.own_dir, lambda parts: parts[0] != settings.journal_dir.name):
        yield Found(f"{STATE}/{GATEWAYS}/{settings.instance}/{path.relative_to(settings.own_dir)}", path)


def beside_segments(settings: Settings) -> Iterator[Found]:
    """Yield what stands in the journal's directory beside its segments: policies, heads of pruning, torn writes."""
    root = settings.journal_dir

    def is_taken(parts: tuple[str, ...]) -> bool:
        return parts[0] not in {"index", ".spare"} and not parts[0].startswith("segment-")

    for path in _files(root, is_taken):
        yield Found(f"{STATE}/{journal_in(settings)}/{path.relative_to(root)}", path)


def is_of_an_environment(name: str) -> bool:
    """Say whether a file belongs to an environment's user, who must be able to read it."""
    return name.startswith(f"{STATE}/{_OF_ENVIRONMENTS}/")


def _files(root: Path, is_taken: Callable[[tuple[str, ...]], bool]) -> Iterator[Path]:
    """Walk regular files below a directory, through no link; names that no backup can hold are left alone."""
    for place, directories, names in os.walk(root, followlinks=False, onerror=_raise):
        parts = Path(place).relative_to(root).parts
        directories[:] = sorted(one for one in directories if is_taken((*parts, one)))
        for name in sorted(names):
            path = Path(place) / name
            if is_taken((*parts, name)) and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _raise(exc: OSError) -> None:
    raise exc
