"""A target of moves in the same process: another site's own `move-in`, its copies made by reading and writing files.

It passes the same suite as the way over ssh (tests/unit/moves/test_targets.py).
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.errors import DevgwError, MoveError
from gateway.model import EnvironmentRef
from gateway.moves.description import Description, Reply, parse
from gateway.operations.arrival import ArrivalOperations
from gateway.operations.receiving import HereReceiver
from tests.fakes.engine import Crash


class NearTarget:
    """The other host. `arrivals` gives its operations, anew after it was killed."""

    def __init__(self, arrivals: Callable[[], ArrivalOperations], on_killed: Callable[[], None] = lambda: None) -> None:
        self._arrivals = arrivals
        self._on_killed = on_killed

    def ask(self, question: str, description: Description) -> Reply:
        said = parse(Description, description.model_dump_json(), "the source")
        arrivals = self._arrivals()
        answers = {"check": arrivals.check, "begin": arrivals.begin, "activate": arrivals.activate}
        with _over_ssh(self._on_killed):
            if question == "abort":
                gone = arrivals.abort(said.id)
                return Reply(devgw="0", step="" if gone is None else gone.step)
            return parse(Reply, answers[question](said).model_dump_json(), "the target")
        raise AssertionError

    def copy(self, directory: Path, move_id: str, environment: str, volume: str, *, may_change: bool) -> None:
        with _over_ssh(self._on_killed):
            CopyingReceiver.source = directory
            self._arrivals().receive(move_id, environment, volume, ("--server", "-a", ".", "volume"))


class CopyingReceiver(HereReceiver):
    """Takes files from a directory of this host in place of rsync's other end."""

    source = Path()

    def receive(self, ref: EnvironmentRef, volume: str, arguments: Sequence[str]) -> int:
        self._lifecycle.files.prepare(ref)
        place = self._lifecycle.files.volume(ref, volume)
        shutil.rmtree(place)
        shutil.copytree(self.source, place, symlinks=True)
        for path in (place, *place.rglob("*")):
            if os.geteuid() == 0:
                os.lchown(path, *self._lifecycle.files.owner(ref))
        return 0


class _over_ssh:  # noqa: N801 - it reads as a with block
    """What the source sees of a target that refuses or is killed."""

    def __init__(self, on_killed: Callable[[], None]) -> None:
        self._on_killed = on_killed

    def __enter__(self) -> None:
        """Nothing goes along."""

    def __exit__(self, _kind: object, exc: BaseException | None, _traceback: object) -> None:
        if isinstance(exc, Crash) and getattr(exc, "at_target", False):
            self._on_killed()
            raise MoveError("move.unreachable", "the connection was lost") from exc
        if isinstance(exc, DevgwError):
            raise MoveError("move.refused", f"root@target: {exc.message}", exc.hint, exit_code=exc.exit_code) from exc
