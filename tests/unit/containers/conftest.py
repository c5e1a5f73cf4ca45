"""Makes the environment's own package importable, and lets no process of a test outlive it.

Images have that package installed, the gateway has not.
"""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import end_those_with

ENVIRONMENT_SOURCES = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
sys.path.insert(0, str(ENVIRONMENT_SOURCES))


@pytest.fixture(autouse=True)
def _ends_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a process running, and end that: a service whose init process is killed stays."""
    mark = str(uuid.uuid4())
    monkeypatch.setenv("DEVGW_TEST_MARK", mark)
    yield
    left = end_those_with(f"DEVGW_TEST_MARK={mark}")
    assert left == [], f"still running: {left}"
