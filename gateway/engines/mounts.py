"""The check every engine makes before it makes anything: each mount's source is there."""

from gateway.errors import EngineError
from gateway.model import EnvironmentSpec


def require_sources(spec: EnvironmentSpec) -> None:
    """Refuse a spec with an absent source, lest an engine make a directory owned by root. Raises: EngineError."""
    for mount in spec.mounts:
        if not mount.source.exists():
            raise missing_source(str(mount.source), mount.target)


def missing_source(source: str, target: str) -> EngineError:
    """Name the source that is not there."""
    return EngineError(
        "mount.missing",
        f"{source} is not there, so it cannot be mounted at {target}",
        f"make it first: 'mkdir {source}'",
    )
