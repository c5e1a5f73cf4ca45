"""What a backup says of itself: by which devgw, of which database schema, and each file with its digest.

It is written last, so that half a backup has none.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from gateway.errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
DATABASES = {"sqlite": "database.sqlite", "postgresql": "database.pgdump"}
"""The dump's name, by the kind of database."""
HEAD = "journal.head"
CONFIG, STATE, VOLUMES, SHARED = "config", "state", "volumes", "shared"
_LARGEST_BYTES = 256 * 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. Owner and group count only for what belongs to an environment's user."""

    size: int
    sha256: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of a backup but the volumes, which have no digests: they are rsync's."""

    devgw: str
    schema: str
    made_at: str
    host: str
    records: int
    entries: dict[str, Entry]
    has_volumes: bool = False
    left_out: tuple[str, ...] = ()
    format: int = FORMAT
    database: str = "sqlite"
    """The kind of the database in it; empty: none."""
    journal: str = "journal"
    """Where the journal is within the state: below its gateway's name where several share a database."""

    @property
    def dump(self) -> str:
        """The name of the database's dump; empty: there is none."""
        name = DATABASES.get(self.database, "")
        return name if name in self.entries else ""

    def text(self) -> str:
        """Return the file's content."""
        document = {
            "format": self.format,
            "devgw": self.devgw,
            "schema": self.schema,
            "database": self.database,
            "journal": self.journal,
            "made_at": self.made_at,
            "host": self.host,
            "records": self.records,
            "has_volumes": self.has_volumes,
            "left_out": list(self.left_out),
            "files": {name: asdict(entry) for name, entry in sorted(self.entries.items())},
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """Read the file. Raises: BackupError `backup.newer`, `backup.damaged`."""
        if len(content) > _LARGEST_BYTES:
            raise BackupError("backup.damaged", "the manifest is larger than any backup's")
        try:
            document = json.loads(content)
            if int(document["format"]) > FORMAT:
                raise BackupError(
                    "backup.newer",
                    f"the backup is of format {document['format']}, and this devgw reads {FORMAT}",
                    f"restore it by devgw {document['devgw']}, which made it, or newer",
                )
            datetime.fromisoformat(document["made_at"])
            return cls(
                devgw=str(document["devgw"]),
                schema=str(document["schema"]),
                made_at=str(document["made_at"]),
                host=str(document["host"]),
                records=int(document["records"]),
                entries={checked_name(name): _entry(found) for name, found in document["files"].items()},
                has_volumes=bool(document["has_volumes"]),
                left_out=tuple(str(one) for one in document["left_out"]),
                database=str(document["database"]),
                journal=_within_state(document.get("journal", "journal")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise BackupError("backup.damaged", f"the manifest cannot be read: {exc}", "take another backup") from exc


def checked_name(name: str) -> str:
    """Return a file's name within a backup if it stays within. Raises: BackupError `backup.unsafe`."""
    path = PurePosixPath(name)
    is_within = name == str(path) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    is_known = name in {MANIFEST, HEAD, *DATABASES.values()} or (
        len(path.parts) > 1 and path.parts[0] in {CONFIG, STATE}
    )
    if not (is_within and is_known and name.isprintable()):
        raise BackupError("backup.unsafe", f"no backup of devgw's holds {name[:120]!r}", "where does it come from?")
    return name


def _within_state(name: object) -> str:
    checked_name(f"{STATE}/{name}")
    return str(name)


def _entry(found: dict[str, Any]) -> Entry:
    entry = Entry(**{name: found[name] for name in Entry.__slots__})
    numbers = (entry.size, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    if any(type(one) is not int or one < 0 for one in numbers) or _DIGEST.fullmatch(entry.sha256) is None:
        raise ValueError("a file's entry is none")
    return entry
