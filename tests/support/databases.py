"""Many databases with empty tables, for tests that need a fresh one again and again."""

import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from gateway.store.database import Database

_MEMORY = Path("/dev/shm")


class Databases(Protocol):
    """Databases with empty tables, many and quickly: those who use them hand each back."""

    def database(self) -> str: ...
    def give_back(self, url: str) -> None: ...


class SqliteCopies:
    """Copies of a file whose tables were made once."""

    def __init__(self, template: Path) -> None:
        self._template = template
        database = Database(f"sqlite:///{template}")
        database.revision()
        database.close()

    def database(self) -> str:
        directory = Path(tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None))
        shutil.copy(self._template, directory / "devgw.db")
        return f"sqlite:///{directory / 'devgw.db'}"

    def give_back(self, url: str) -> None:
        shutil.rmtree(Path(url.removeprefix("sqlite:///")).parent)
