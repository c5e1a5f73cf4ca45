"""The check every engine makes before it makes anything: each mount's source is there."""

from collections.abc import Iterable
from pathlib import Path

from gateway.errors import EngineError
from gateway.model import EnvironmentSpec


def require_sources(spec: EnvironmentSpec) -> None:
    """Refuse a spec with an absent source, lest an engine make a directory owned by root. Raises: EngineError."""
    for mount in spec.mounts:
        if not mount.source.exists():
            raise missing_source(str(mount.source), mount.target)


def require_mounted(mounts: Iterable[tuple[str, str]]) -> None:
    """Name the source that went away after its environment was made. Raises: EngineError `mount.missing`.

    One that we may not look at is taken to be there.
    """
    for source, target in mounts:
        try:
            Path(source).stat()
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise missing_source(source, target) from exc
        except OSError:
            continue


def missing_source(source: str, target: str) -> EngineError:
    """Name the source that is not there."""
    return EngineError(
        "mount.missing",
        f"{source} is not there, so it cannot be mounted at {target}",
        f"make it first: 'mkdir {source}'",
    )
