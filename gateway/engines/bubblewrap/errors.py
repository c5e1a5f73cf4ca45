"""What can go wrong with a sandbox, in words that say what to do."""

from gateway.disk import is_full
from gateway.errors import ConflictError, EngineError, NotFoundError

_LINE_LENGTH = 300


def image_not_found(reference: str) -> NotFoundError:
    """Say that no root of that name was prepared here."""
    return NotFoundError(
        "image.not-found",
        f"there is no image {one_line(reference)} on this host",
        "'devgw image build' makes one, 'devgw image list' shows what is there",
    )


def store_failed(doing: str, exc: OSError) -> EngineError:
    """Say that the directory of prepared roots did not let us."""
    if is_full(exc):
        hint = "make room there, such as with 'devgw image prune'"
        return EngineError("engine.no-space", f"the engine could not {one_line(doing)}: its disk is full", hint)
    return EngineError("engine.failed", f"the engine could not {one_line(doing)}: {one_line(str(exc))}", "")


def image_outdated(reference: str, what: str) -> NotFoundError:
    """Say that a prepared root no longer fits the host's own software."""
    return NotFoundError(
        "image.outdated",
        f"the image {one_line(reference)} no longer fits this host: {what}",
        "'devgw image build' makes it anew",
    )


def environment_not_found(name: str) -> NotFoundError:
    """Say that there is no such sandbox."""
    return NotFoundError("environment.not-found", f"the engine has no environment {name}", "'devgw list' shows all")


def environment_exists(name: str) -> ConflictError:
    """Say that the name is taken."""
    return ConflictError(
        "environment.exists", f"the engine already has an environment {name}", f"'devgw delete {name}' removes it"
    )


def no_namespaces(reason: str, hint: str) -> EngineError:
    """Say why no sandbox can be made; nothing is ever started without one."""
    return EngineError("engine.no-namespaces", f"this host lets us make no sandbox: {one_line(reason)}", hint)


def failed(doing: str, reason: str) -> EngineError:
    """Say what could not be done."""
    return EngineError(
        "engine.failed", f"the engine could not {doing}: {one_line(reason)}", "'devgw doctor' looks for the cause"
    )


def one_line(text: str) -> str:
    """Make foreign text fit for one line of output: no control characters, at most 300 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:_LINE_LENGTH]
