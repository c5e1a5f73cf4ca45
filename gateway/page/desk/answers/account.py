"""What is a user's own beside environments: keys, hours of GPUs, what they may do and why not, how to connect."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.environments.connection import Connection, public_host
from gateway.environments.ssh_config import Gateway, blocks
from gateway.errors import UsageError
from gateway.gpus.usage import Period, Span, account
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site
from policies.explain import explain
from policies.limits import limits_of

answers = Answers()
_QUESTION_MAX = 300
_DAYS_MAX = 400
_USUAL_QUESTIONS = (
    "shell", "exec", "sftp", "forward localhost:8888", "forward localhost:6006", "reverse-forward localhost:8000",
    "agent-forwarding", "streamlocal /tmp/a.sock", "gpu 1", "egress internet", "page auditor", "page admin",
)  # fmt: skip


@answers.to("account.keys")
def keys(site: Site, asker: Asker) -> list[dict[str, Any]]:
    """Return the asker's public keys."""
    return [
        {
            "fingerprint": key.fingerprint,
            "algorithm": key.algorithm,
            "bits": key.bits,
            "comment": key.comment,
            "added_at": key.added_at.isoformat() if key.added_at else None,
            "last_used_at": key.last_used_at.isoformat() if key.last_used_at else None,
            "is_this": key.fingerprint == asker.subject.key_fingerprint,
        }
        for key in site.users.keys(asker.user)
    ]


@answers.to("account.hours")
def hours(site: Site, asker: Asker, days: int = 30) -> list[dict[str, Any]]:
    """Return GPU-hours of the asker's environments over so many days, as `devgw usage --by environment` counts them."""
    now = datetime.now(UTC)
    period = Period(now - timedelta(days=min(max(1, days), _DAYS_MAX)), now, now)
    mine = [one for one in site.lease_table.past(period.since) if one.ref.user == asker.user]
    spans = [Span(one.gpu, one.ref, one.leased_at, one.ended_at) for one in mine]
    spans += [Span(one.gpu, one.ref, one.leased_at) for one in site.lease_table.held() if one.ref.user == asker.user]
    samples = site.usage_table.between(period.since, period.until, asker.user)
    return [
        {
            "environment": line.key,
            "leases": line.leases,
            "leased_hours": line.leased_seconds / 3600,
            "used_hours": None if line.used_seconds is None else line.used_seconds / 3600,
            "observed_hours": line.observed_seconds / 3600,
            "memory_peak_bytes": line.memory_peak_bytes,
        }
        for line in account(spans, samples, period, "environment")
    ]


@answers.to("account.may")
def may(site: Site, asker: Asker, question: str = "") -> dict[str, Any]:
    """Return what the asker may do by the usual questions, or by one of their own; each with its rule and reason."""
    now, policy = datetime.now(UTC), site.policy.policy
    questions = (question,) if question else _USUAL_QUESTIONS
    try:
        explained = [explain(policy, one[:_QUESTION_MAX], asker.subject, now).as_dict() for one in questions]
    except ValueError as exc:
        raise UsageError("question.bad", " ".join(str(exc).split()), "for example: forward localhost:6006") from exc
    limits = limits_of(policy, asker.user, now)
    shown = replace(limits, egress_hosts=())
    numbers = {name: getattr(shown, name) for name in _NUMBERS}
    named = {name: list(getattr(shown, name)) for name in ("images", "datasets", "gpu_profiles")}
    hosts = [str(target) for target in limits.egress_hosts]
    return {"answers": explained, "numbers": numbers, "lists": named | {"hosts": hosts}, "egress": str(limits.egress)}


_NUMBERS = (
    "environments", "memory_bytes", "cpus", "lifetime_seconds", "gpus", "lease_seconds", "idle_stop_seconds",
    "record_sessions",
)  # fmt: skip


@answers.to("account.connect")
def connect(site: Site, asker: Asker) -> dict[str, Any]:
    """Return the lines that lead to each of the asker's environments."""
    settings = site.settings
    fingerprint = site.authority.host_key_fingerprint()
    refs = [one.ref for one in site.table.all(asker.user)]
    gateway = Gateway(
        public_host(settings), settings.server.port, settings.server.notebook_port, fingerprint=fingerprint
    )
    reaches = [Connection.of(settings, ref) for ref in refs]
    return {
        "host": gateway.host,
        "port": gateway.port,
        "fingerprint": fingerprint,
        "config": blocks(gateway, refs),
        "environments": [
            {
                "handle": str(one.ref),
                "ssh_line": one.ssh_line,
                "notebook_url": one.notebook_url,
                "remote": f"{one.ref}@{one.host}" + ("" if one.port == 22 else f":{one.port}"),
            }
            for one in reaches
        ],
    }
