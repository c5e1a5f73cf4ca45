"""The digest of a spec: what an environment was made from, short enough for a label and equal on every engine."""

import hashlib
import json
from dataclasses import asdict

from gateway.model import EnvironmentSpec


def digest_of(spec: EnvironmentSpec) -> str:
    """Return the SHA-256 of a spec's canonical JSON; specs with equal values have equal digests."""
    canonical = json.dumps(asdict(spec), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
