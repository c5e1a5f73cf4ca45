"""The metrics as a file for node_exporter's textfile collector: written whole, in the place of the one before."""

import os
from pathlib import Path

from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry


def write_textfile(path: Path, registry: CollectorRegistry) -> None:
    """Write the file, readable by whoever may look into its directory. Raises: OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")  # node_exporter reads names that end in .prom
    try:
        with fresh.open("wb") as file:
            file.write(generate_latest(registry))
            os.fchmod(file.fileno(), 0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
