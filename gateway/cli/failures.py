"""Turns what went wrong into `devgw: error:` and `devgw: hint:` on stderr, and into an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from gateway.cli.output import printable
from gateway.errors import DevgwError, Exit

# click's UsageError; typer exports only this subclass of it by a public name
_UsageMistake: type[Exception] = typer.BadParameter.__bases__[0]
_Interrupted = (KeyboardInterrupt, typer.Abort)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the person at the terminal is told."""

    message: str
    hint: str = ""


def exit_code_of(exc: BaseException) -> int:
    """Return the exit code that stands for this failure in docs/reference/errors.md."""
    if isinstance(exc, DevgwError):
        return exc.exit_code
    if isinstance(exc, _UsageMistake):
        return Exit.USAGE
    if isinstance(exc, _Interrupted):
        return Exit.INTERRUPTED
    return Exit.FAILURE


@contextmanager
def own_failures() -> Iterator[None]:
    """Let a failure without a number of its own end with 125, where any other code is the remote program's."""
    try:
        yield
    except DevgwError as exc:
        if exc.exit_code == Exit.FAILURE:
            exc.exit_code = Exit.OWN_FAILURE
        raise


def report(exc: BaseException) -> None:
    """Write the failure to stderr; with DEVGW_DEBUG=1 its traceback first."""
    if os.environ.get("DEVGW_DEBUG") == "1":
        traceback.print_exception(exc)
    failure = _describe(exc)
    sys.stderr.write(f"devgw: error: {printable(failure.message)}\n")
    if failure.hint:
        sys.stderr.write(f"devgw: hint: {printable(failure.hint)}\n")
    sys.stderr.flush()


def _describe(exc: BaseException) -> Failure:
    if isinstance(exc, DevgwError):
        return Failure(exc.message, exc.hint)
    if isinstance(exc, _UsageMistake):
        return _describe_usage(exc)
    if isinstance(exc, _Interrupted):
        return Failure("interrupted")
    if isinstance(exc, OSError) and exc.strerror:
        place = f"{exc.filename}: " if exc.filename else ""
        return Failure(f"{place}{exc.strerror.lower()}", "DEVGW_DEBUG=1 shows where it happened")
    return Failure(
        f"unexpected {type(exc).__name__}: {str(exc) or 'no message'}",
        "run it again with DEVGW_DEBUG=1 for the traceback, and report it",
    )


def _describe_usage(exc: Exception) -> Failure:
    text = " ".join(exc.format_message().split()) if hasattr(exc, "format_message") else str(exc)
    message, _, suggestion = text.replace("Value error, ", "").partition(" Did you mean ")
    context = getattr(exc, "ctx", None)
    command = context.command_path if context is not None else "devgw"
    hint = f"did you mean {suggestion}" if suggestion else f"'{command} --help' shows what it takes"
    return Failure(_in_our_voice(message), hint)


def _in_our_voice(message: str) -> str:
    """Lower case, no full stop, as everywhere: also in what stands behind `invalid value for '--cpus': `."""
    parts = (part[:1].lower() + part[1:] for part in message.rstrip(".").split(": "))
    return ": ".join(parts)
