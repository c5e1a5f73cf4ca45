"""A way into a running environment that every engine has: a spool in the directory mounted at /run/devgw."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_DEADLINE_SECONDS = 30
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Output:
    """What a script inside wrote and how it ended."""

    code: int
    text: str


class Spool:
    """Drops scripts for `probe.sh` to run as a child of the environment's entrypoint, and reads what they wrote."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def run(self, script: str) -> Output:
        """Run a shell script inside and wait for its end."""
        name = f"job{next(self._numbers)}"
        draft = self._directory / f"{name}.draft"
        draft.write_text(script)
        draft.rename(self._directory / f"{name}.sh")
        code = self._directory / f"{name}.code"
        wait_until(code.exists, f"the environment ran {script!r}")
        return Output(int(code.read_text()), (self._directory / f"{name}.out").read_text())

    def quit(self, code: int) -> None:
        """Let the entrypoint end by itself."""
        (self._directory / "quit").write_text(str(code))

    @property
    def terminated(self) -> bool:
        """Whether the entrypoint was sent a SIGTERM."""
        return (self._directory / "terminated").exists()


def wait_until(is_reached: Callable[[], bool], state: str) -> None:
    """Poll for a state with a deadline."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not is_reached():
        assert time.monotonic() < deadline, f"not reached in {_DEADLINE_SECONDS} s: {state}"
        time.sleep(_POLL_SECONDS)
