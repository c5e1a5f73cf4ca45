"""Replays transcripts of the command line.

`# ` a remark, `$ ` a command, `% ` something else that happens, `2> ` a line on stderr, `[exit N]` an exit code
other than 0, `~` an empty line and every other line stdout.
"""

from collections.abc import Iterator

from tests.cli.site import Outcome, Site


def replay(text: str, site: Site) -> Iterator[str]:
    """Yield the transcript as it comes out now."""
    for line in text.splitlines():
        if line.startswith("# ") or not line:
            yield line
        elif line.startswith("% "):
            yield line
            site.happens(line[2:])
        elif line.startswith("$ "):
            yield line
            yield from _lines_of(site.run(line[2:]))


def _lines_of(outcome: Outcome) -> Iterator[str]:
    yield from (line or "~" for line in outcome.stdout.splitlines())
    yield from (f"2> {line}" for line in outcome.stderr.splitlines())
    if outcome.exit_code:
        yield f"[exit {outcome.exit_code}]"
