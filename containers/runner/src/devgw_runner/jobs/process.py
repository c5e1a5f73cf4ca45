"""Whether a recorded process is still the same process: its id and its start time together."""

from pathlib import Path

START_TIME_FIELD = 19  # the 22nd field of proc(5) stat, counted after the ")" that ends the name


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[START_TIME_FIELD])


def is_same_process(pid: int, ticks: int) -> bool:
    """Say whether `pid` is alive and was not reused."""
    return start_ticks(pid) == ticks
