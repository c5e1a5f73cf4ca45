"""The only place that writes for people and programs: tables and JSON on stdout, progress and prompts on stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from gateway.engines.interface import Progress, ignore_progress
from gateway.errors import UsageError

JSON_VERSION = 1
Steps = Callable[[int, int, str], None]  # step, of how many, and what it does just now
_GUTTER = "  "


class Form(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"


class Output:
    """Results, notes, progress and questions of one command."""

    def __init__(self, form: Form = Form.TABLE, *, quiet: bool = False) -> None:
        self.form = form
        self.quiet = quiet

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], document: Mapping[str, Any]) -> None:
        """Write a list of things: JSON, only the first column when quiet, else aligned columns."""
        if self.form is Form.JSON:
            self._json(document)
        elif self.quiet:
            _write("".join(f"{printable(row[0])}\n" for row in rows))
        else:
            _write(_columns([headings, *rows], bold_first_row=True))

    def stream(self, headings: Mapping[str, int], rows: Iterable[tuple[Sequence[str], str]]) -> None:
        """Write rows as they come, each with its line of JSON: columns of a least width, so that none waits."""
        if self.form is Form.TABLE and not self.quiet:
            _write(_padded(list(headings), headings.values()))
        for cells, line in rows:
            _write(f"{line}\n" if self.form is Form.JSON else _padded(cells, headings.values()))

    def facts(self, facts: Mapping[str, str], document: Mapping[str, Any]) -> None:
        """Write one thing as names and values. It is the result, so it is written also when quiet."""
        if self.form is Form.JSON:
            self._json(document)
        else:
            _write(_columns(list(facts.items())))

    def done(self, line: str, document: Mapping[str, Any]) -> None:
        """Say that an act is done; nothing in the table form when quiet."""
        if self.form is Form.JSON:
            self._json(document)
        elif not self.quiet:
            _write(f"{printable(line)}\n")

    def text(self, text: str) -> None:
        """Write what another program reads as it is: a script, a configuration."""
        _write(text)

    def note(self, line: str) -> None:
        """Tell the person something beside the result."""
        if not self.quiet:
            sys.stderr.write(f"devgw: note: {printable(line)}\n")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield what shows steps: one moving line on a terminal, plain lines elsewhere, nothing when quiet."""
        if self.quiet:
            yield ignore_progress
        elif is_terminal(sys.stderr):
            with _spinner() as show:
                yield show
        else:
            yield _plain_step

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        """Yield what shows how far a long work of known length is: a bar on a terminal, a line a step elsewhere."""
        if self.quiet:
            yield lambda _done, _total, _line: None
        elif is_terminal(sys.stderr):
            with _bar() as show:
                yield show
        else:
            yield _once_a_step(_plain_step)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask on the terminal, unless answered beforehand.

        Raises:
            UsageError: `confirmation.needed`, where nobody can be asked.
        """
        if yes:
            return True
        if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            raise UsageError("confirmation.needed", f"not without a confirmation: {question}", "add --yes")
        sys.stderr.write(f"{printable(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    @staticmethod
    def _json(document: Mapping[str, Any]) -> None:
        _write(json.dumps({"version": JSON_VERSION, **document}, indent=2, default=str) + "\n")


def printable(text: str) -> str:
    """Escape control characters, so that no name or comment from outside can drive a terminal (invariant 9)."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def is_terminal(stream: Any) -> bool:
    """Say whether a person sits at the other end."""
    return bool(stream.isatty())


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _columns(rows: Sequence[Sequence[str]], *, bold_first_row: bool = False) -> str:
    """Align columns; never cut, so that a narrow terminal wraps and a program reads whole values."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(_width(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [_GUTTER.join(_filled(row, widths)).rstrip() for row in cells]
    if bold_first_row and _may_colour():
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines) + "\n"


def _padded(cells: Sequence[str], widths: Iterable[int]) -> str:
    shown = (printable(cell) or "-" for cell in cells)
    return "  ".join(_filled(shown, widths)).rstrip() + "\n"


def _filled(cells: Iterable[str], widths: Iterable[int]) -> Iterator[str]:
    """Fill cells up to their columns' widths, counted in terminal cells: a Chinese character takes two."""
    return (cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _may_colour() -> bool:
    import os

    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain_step(line: str) -> None:
    sys.stderr.write(f"devgw: {printable(line)}\n")
    sys.stderr.flush()


@contextmanager
def _spinner() -> Iterator[Progress]:
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("starting") as status:
        yield lambda line: status.update(Text(printable(line)))


@contextmanager
def _bar() -> Iterator[Steps]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def show(step: int, steps: int, line: str) -> None:
            bars.update(task, completed=max(0, step - 1), total=steps or None, description=printable(line)[:120])

        yield show


def _once_a_step(write: Progress) -> Steps:
    """Return what writes the first line of each step only: the rest would be a log."""
    last = 0

    def show(step: int, steps: int, line: str) -> None:
        nonlocal last
        if step != last:
            last = step
            write(f"step {step} of {steps}: {line}")

    return show
