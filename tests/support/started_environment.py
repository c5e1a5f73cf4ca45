"""The row of an environment that was started just now, for what needs no store."""

from datetime import UTC, datetime

from gateway.model import Egress, Environment, EnvironmentRef, EnvironmentState, Limits

DIGEST = f"sha256:{'d' * 64}"


def started(ref: EnvironmentRef) -> Environment:
    """Return the row."""
    limits = Limits(2**30, 1, 64, 2**29)
    return Environment(
        ref, EnvironmentState.RUNNING, "fake", "devgw/env:cpu", limits, "0", (), (), Egress.NONE, datetime.now(UTC),
        should_run=True, image_digest=DIGEST,
    )  # fmt: skip
