"""What an environment's entrypoint wrote: one file, and the one before it, of bounded size."""

from pathlib import Path

_LARGEST_BYTES = 10 * 2**20
_TAIL_BYTES = 256 * 2**10


class Log:
    """Written by the supervisor alone; anybody may read it meanwhile."""

    def __init__(self, path: Path, largest_bytes: int = _LARGEST_BYTES) -> None:
        self._path = path
        self._largest_bytes = largest_bytes
        self._file = path.open("ab", buffering=0)

    def write(self, content: bytes) -> None:
        """Append; a file that is full becomes the one before. A full disk costs lines, not the environment."""
        try:
            if self._file.tell() + len(content) > self._largest_bytes:
                self._file.close()
                self._path.replace(previous(self._path))
                self._file = self._path.open("ab", buffering=0)
            self._file.write(content)
        except OSError:
            return


def previous(path: Path) -> Path:
    """Name the file before this one."""
    return path.with_name(f"{path.name}.1")


def last_lines(path: Path, lines: int) -> str:
    """Return the last lines across both files; empty where nothing was written."""
    text = b"".join(_tail(one) for one in (previous(path), path)).decode(errors="replace")
    return "".join(text.splitlines(keepends=True)[-lines:]) if lines > 0 else ""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
