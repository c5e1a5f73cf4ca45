"""The typed error tree. A message is safe to show to the user; the detail goes to the journal and the log.

Codes, meanings and exit codes are listed in docs/reference/errors.md.
"""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the `devgw` command, the same everywhere."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    TIMED_OUT = 3
    NOT_FOUND = 4
    DENIED = 5
    CONFLICT = 6
    NOT_PROVEN = 7
    OWN_FAILURE = 125
    INTERRUPTED = 130


class DevgwError(Exception):
    """A failure with a stable code, one line for the user and a hint that can be typed."""

    exit_code: Exit = Exit.FAILURE

    def __init__(self, code: str, message: str, hint: str = "", *, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class ConfigError(DevgwError):
    """A setting that cannot be used; names file and key."""


class UsageError(DevgwError):
    """A value from the command line that is not of its form."""

    exit_code = Exit.USAGE


class NotFoundError(DevgwError):
    """A user, environment, key or image that does not exist."""

    exit_code = Exit.NOT_FOUND


class ConflictError(DevgwError):
    """Something of that name or state is there already."""

    exit_code = Exit.CONFLICT


class DeniedError(DevgwError):
    """A Decision against the request, turned into an error by the gate or the command line."""

    exit_code = Exit.DENIED


class TimedOutError(DevgwError):
    """A state that was not reached in its time."""

    exit_code = Exit.TIMED_OUT


class AuthError(DevgwError):
    """A key or password that cannot be accepted."""


class EngineError(DevgwError):
    """The container engine failed or refused."""


class NodeError(EngineError):
    """A machine does not answer: what runs there is unknown, and nothing is done about it."""


class LeaseError(DevgwError):
    """A GPU that cannot be leased."""


class QueuedError(LeaseError):
    """Every GPU that would do is taken now; waiting may help."""

    exit_code = Exit.TIMED_OUT


class StoreError(DevgwError):
    """The state database cannot be used."""


class BackupError(DevgwError):
    """A backup that cannot be made, or one that cannot be believed."""


class MoveError(DevgwError):
    """A user who cannot be moved to another host, or not now; they are where they were."""


class JournalError(DevgwError):
    """An event that could not be made durable; the act it records must not happen."""


class NotProvenError(JournalError):
    """Nothing wrong was found, but what should be proven could not be compared."""

    exit_code = Exit.NOT_PROVEN
