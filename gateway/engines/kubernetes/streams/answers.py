"""What the program inside a pod says of the service that it was asked for, in one line before any frame."""

from gateway.engines.interface import Service
from gateway.engines.run_directory import absent
from gateway.errors import EngineError

READY, ABSENT, REFUSED, FORGED = b"+", b"-absent", b"-refused", b"-forged"


def require_ready(answer: bytes, service: Service) -> None:
    """Take the line for a yes. Raises: EngineError, `socket.absent`, `socket.forged` or `socket.refused`."""
    if answer == READY:
        return
    if answer == ABSENT:
        raise absent(service)
    if answer == FORGED:
        raise EngineError("socket.forged", f"what lies at {service}.sock is not the environment's socket")
    said = answer.decode(errors="replace").strip("-")
    why = f": {' '.join(said.split())[:160]}" if said not in {"", "refused"} else ""
    raise EngineError("socket.refused", f"the environment's {service} service does not answer{why}")


def silent(service: Service) -> EngineError:
    """Return the error of a service that says neither yes nor no."""
    return EngineError("socket.refused", f"the environment's {service} service does not answer in time")
