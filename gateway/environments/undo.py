"""Everything given back when a step fails."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gateway.errors import DevgwError


@contextmanager
def undo_on_error() -> Iterator[ExitStack]:
    """Run the callbacks in reverse when the block fails, also by Ctrl-C; a failure to undo never hides the cause."""
    with ExitStack() as undo:
        try:
            yield undo
        except (Exception, KeyboardInterrupt, SystemExit) as cause:
            try:
                undo.close()
            except DevgwError as exc:
                cause.add_note(f"while undoing: {exc.message}")
            raise
        undo.pop_all()
