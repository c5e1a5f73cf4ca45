"""The throttle that the processes of one gateway have in common: those that serve, and the command line."""

import time

from gateway.auth.proofs import Proofs
from gateway.auth.throttle import Throttle
from gateway.auth.throttle_store import SharedFile
from gateway.config import Settings


def throttle_of(settings: Settings) -> Throttle:
    """Return what counts failed logins; it outlives this process and is every worker's."""
    exempt = (str(network) for network in settings.server.per_source_penalty_exempt)
    proofs = Proofs(time.time, SharedFile(settings.state_dir / "proofs.jsonl"))
    return Throttle(time.time, exempt=exempt, memory=SharedFile(settings.state_dir / "throttle.jsonl"), proofs=proofs)
