"""Every transcript comes out as it is written down. DEVGW_WRITE_TRANSCRIPTS=1 writes them anew, to be reviewed."""

import os
from pathlib import Path

import pytest

from tests.cli.site import Site
from tests.cli.transcript import replay

_FOLDER = Path(__file__).parent / "transcripts"
_TRANSCRIPTS = sorted(_FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", _TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript_comes_out_as_it_is_written_down(path: Path, site: Site) -> None:
    """Stdout, stderr and exit code of each command, in order."""
    written = path.read_text()
    now = "\n".join(replay(written, site)) + "\n"
    if os.environ.get("DEVGW_WRITE_TRANSCRIPTS") == "1":
        path.write_text(now)
    assert now == written


def test_transcripts_are_found() -> None:
    """An empty folder would pass the test above."""
    assert {"create", "bad-input", "keys", "completion", "policy", "audit"} <= {path.stem for path in _TRANSCRIPTS}
