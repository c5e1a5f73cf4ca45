"""What can go wrong in a run, each kind with its own exit code.

Printing is left to `cli` and `entry`; the codes are part of `docs/reference/runner-contract.md`.
"""

import errno
from typing import ClassVar

EXIT_OK = 0
EXIT_OWN_FAILURE = 125
SIGNAL_EXIT_BASE = 128

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY_ERRNOS = frozenset({errno.EROFS})


class RunnerError(Exception):
    """A failure that a user can act on: one sentence, one hint, one exit code."""

    code: ClassVar[str] = "failure"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RunnerError):
    code = "usage"
    exit_code = 2


class TaskError(RunnerError):
    code = "task"
    exit_code = 10


class DataError(RunnerError):
    code = "data"
    exit_code = 11


class CheckpointError(RunnerError):
    code = "checkpoint"
    exit_code = 12


class StorageError(RunnerError):
    code = "storage"
    exit_code = 13


class PrecisionError(RunnerError):
    code = "precision"
    exit_code = 14


class NotFiniteError(RunnerError):
    code = "not-finite"
    exit_code = 15


class OutOfMemoryError(RunnerError):
    code = "out-of-memory"
    exit_code = 16


class PreflightError(RunnerError):
    code = "preflight"
    exit_code = 17


class OtherModelError(RunnerError):
    code = "other-model"
    exit_code = 18


class ReadOnlyError(RunnerError):
    code = "read-only"
    exit_code = 19


class ShardingError(RunnerError):
    code = "sharding"
    exit_code = 20


class InUseError(RunnerError):
    code = "in-use"
    exit_code = 21


class ExportError(RunnerError):
    code = "export"
    exit_code = 22


class GroupTimeoutError(RunnerError):
    code = "group-timeout"
    exit_code = 23


class StopRequested(BaseException):
    """Raised by a signal handler to leave a long compilation.

    It derives from BaseException because torch's compiler turns every `Exception` into its own.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def storage_error(exc: OSError, doing: str) -> RunnerError:
    """Translate a failed write into the kind that names its remedy."""
    where = exc.filename or ""
    if exc.errno in DISK_FULL_ERRNOS:
        hint = "free space on that volume or choose another; earlier checkpoints are intact"
        return StorageError(f"no space left while {doing}", hint)
    if exc.errno in READ_ONLY_ERRNOS:
        return read_only_error(exc)
    detail = exc.strerror or type(exc).__name__
    message = f"cannot write while {doing}: {detail.lower()}" + (f": {where}" if where else "")
    return StorageError(message, "choose a writable directory with --checkpoint-dir or --log-dir")


def read_only_error(exc: OSError) -> ReadOnlyError:
    """Say that a write went to a read-only volume."""
    where = f": {exc.filename}" if exc.filename else ""
    return ReadOnlyError(
        f"write refused on a read-only file system{where}",
        "data volumes are read-only; write under --checkpoint-dir, --log-dir or the home directory",
    )


def every_exit_code() -> dict[int, str]:
    """Return each exit code of our own with its name; the documentation test reads it."""
    return {EXIT_OK: "ok", 1: "failure", **dict(own_exit_codes()), EXIT_OWN_FAILURE: "wrap"}


def own_exit_codes() -> list[tuple[int, str]]:
    """Return the code and the name of each kind of failure, in the order of this page."""
    return [(kind.exit_code, kind.code) for kind in RunnerError.__subclasses__() if "exit_code" in vars(kind)]
