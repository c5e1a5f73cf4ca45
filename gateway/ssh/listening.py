"""Why a port cannot be listened on, in one sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import ConfigError, ConflictError, DevgwError

_ELSEWHERE = "--port or server.port names another"


@contextmanager
def explained(address: str, port: int) -> Iterator[None]:
    """Explain what goes wrong while a port is opened. Raises: ConflictError, ConfigError."""
    try:
        yield
    except OSError as exc:
        raise _explain(address, port, exc) from exc


def _explain(address: str, port: int, exc: OSError) -> DevgwError:
    match exc.errno:
        case errno.EADDRINUSE:
            return ConflictError(
                "server.port-taken", f"another process listens on port {port}", f"'ss -ltnp' shows which; {_ELSEWHERE}"
            )
        case errno.EACCES:
            return ConfigError(
                "server.port-forbidden",
                f"this user may not listen on port {port}",
                f"ports under 1024 need CAP_NET_BIND_SERVICE; {_ELSEWHERE}",
            )
        case errno.EADDRNOTAVAIL:
            return ConfigError(
                "server.address-unknown",
                f"this host has no address {address!r}",
                "--listen or server.listen_address names one that it has; empty means all",
            )
        case _:
            why = (exc.strerror or type(exc).__name__).lower()
            return ConfigError("server.port-unusable", f"cannot listen on {address!r}, port {port}: {why}", _ELSEWHERE)
