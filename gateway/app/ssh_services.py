"""Ties the SSH server to this gateway's store, environments and policy."""

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from gateway.model import UserName
from gateway.policy import PolicyInForce
from gateway.process.ownership import this_process
from gateway.ssh.services import RecordingSettings, Services
from policies.limits import Allowance, limits_of

if TYPE_CHECKING:
    from gateway.app.composition import App


class PolicyAccess:
    """Numbers, recording and CAs of the policy of this moment."""

    def __init__(self, policy: PolicyInForce) -> None:
        self._policy = policy

    def allowance(self, user: UserName) -> Allowance:
        return limits_of(self._policy.policy, user, datetime.now(UTC))

    def trusts(self, ca_fingerprint: str) -> bool:
        return self._policy.policy.authority_name(ca_fingerprint) is not None


def services_of(app: "App") -> Services:
    """Name what answers the SSH server's questions."""
    audit, has_others = app.settings.audit, app.settings.server.workers > 1
    return Services(
        directory=app.users,
        environments=app.environments,
        gate=app.gate,
        recorder=app.event_budget,
        budget=app.event_budget,
        throttle=app.throttle,
        user_ca_key=app.authority.user_ca_key,
        host_keys=app.authority.host_keys,
        access=PolicyAccess(app.policy),
        recordings=RecordingSettings(app.settings.recordings_dir, audit.recording_cap, audit.record_input),
        connections_elsewhere=partial(app.live_sessions.count_of_others, this_process()) if has_others else None,
    )
