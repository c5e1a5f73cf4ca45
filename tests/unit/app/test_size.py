"""The composition root joins; what it joins has the rooms below."""

from pathlib import Path

import gateway.app

LINES_MAX = 600


def test_the_root_stays_small() -> None:
    """What would make it larger belongs to the room whose duty it is."""
    files = Path(gateway.app.__file__).parent.glob("*.py")
    assert 100 < sum(len(file.read_text().splitlines()) for file in files) <= LINES_MAX
