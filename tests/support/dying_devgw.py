"""`python -m tests.support.dying_devgw …`: the real command, killed by SIGKILL at each step of a move, once each.

A step is killed just before it is durable, and just after; DYING_MARKS is a directory that remembers where it was.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gateway.__main__ import main
from gateway.store import moves, moving
from gateway.store.database import Database

_MARKS = Path(os.environ["DYING_MARKS"])
_steps: list[str] = []
_advance, _insert, _transaction = moves.advance_move, moves.insert_move, Database.transaction


def _die_once(moment: str) -> None:
    mark = _MARKS / moment
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def advance(connection: Connection, move: moves.Move, step: str, **rest: Any) -> moves.Move:
    """Remember which step the transaction is about."""
    _steps.append(step)
    return _advance(connection, move, step, **rest)


def insert(connection: Connection, move: moves.Move) -> None:
    """The same for the first."""
    _steps.append(move.step)
    _insert(connection, move)


@contextmanager
def transaction(self: Database, *, changes_access: bool = False) -> Iterator[Connection]:
    """Die within it once its step is made, or as soon as it is durable."""
    _steps.clear()
    with _transaction(self, changes_access=changes_access) as connection:
        yield connection
        for step in _steps:
            _die_once(f"before-{step}")
    for step in _steps:
        _die_once(f"after-{step}")


if __name__ == "__main__":
    for module in (moves, moving):
        vars(module).update(advance_move=advance, insert_move=insert)
    Database.transaction = transaction  # type: ignore[method-assign]
    sys.exit(main())
