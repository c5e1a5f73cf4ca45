"""The reason an administrator gives, which a user may be shown and the journal keeps."""

from gateway.errors import UsageError

_CHARACTERS_MAX = 200


def require_line(reason: str) -> None:
    """Take only what can stand on a user's screen as it is. Raises: UsageError `reason.bad`."""
    if not reason.isprintable() or len(reason) > _CHARACTERS_MAX:
        raise UsageError(
            "reason.bad",
            f"--reason: not one line of at most {_CHARACTERS_MAX} printable characters",
            "for example --reason 'maintenance until noon'",
        )
