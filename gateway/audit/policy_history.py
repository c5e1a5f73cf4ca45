"""Every policy that was in force, kept by its hash; the journal says which one when.

The hash stands in the chained `policy.loaded` record, so a kept text that was edited afterwards shows.
"""

import os
import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from gateway.audit.event import Event
from gateway.audit.read import Filter, stream
from gateway.errors import JournalError
from gateway.model import Actor
from policies.diff import diff
from policies.load import PolicyError, parse_untested
from policies.model import Policy

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy and the moment from which it decided."""

    since: datetime
    digest: str
    policy: Policy


def keep(archive: Path, text: str) -> str:
    """Keep a policy's text under its hash, durably. Returns the hash. Raises: JournalError `policy.not-kept`."""
    content = text.encode()
    digest = sha256(content).hexdigest()
    path = archive / f"{digest}.toml"
    if path.exists():
        return digest
    try:
        archive.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as exc:
        raise JournalError("policy.not-kept", f"the policy's text cannot be kept: {exc.strerror}") from exc
    return digest


def loaded_event(actor: Actor, file: Path, digest: str, old: Policy | None, new: Policy) -> Event:
    """Build the `policy.loaded` record: which text came into force, and in effects what it changed."""
    changes = [str(change) for change in diff(old, new)] if old is not None else []
    detail: dict[str, str | int | float | bool | None] = {
        "file": str(file),
        "sha256": digest,
        "change_count": len(changes),
        "changes": "; ".join(changes),
    }
    return Event("policy.loaded", actor, detail=detail)


def in_force_between(journal: Path, archive: Path, since: datetime, until: datetime) -> tuple[InForce, ...]:
    """Return every policy that decided at some time in a span, the oldest first.

    Raises:
        JournalError: `policy.not-kept` when a text is missing or is not the one that was loaded.
    """
    loaded = list(stream(journal, Filter(action="policy.loaded", until=until)))
    before = [record for record in loaded if record.at <= since][-1:]
    if not before and not any(record.at < until for record in loaded):
        first = next(stream(journal, Filter(action="policy.loaded")), None)
        hint = f"the first that it names was loaded at {first.at:%Y-%m-%d %H:%M} UTC" if first else "it names none"
        then = f"{until:%Y-%m-%d %H:%M} UTC"
        raise JournalError("policy.not-kept", f"the journal does not say which policy was in force before {then}", hint)
    within = [record for record in loaded if record.at > since]
    return tuple(
        InForce(record.at, digest, kept_policy(archive, digest))
        for record in before + within
        for digest in (str(record.detail.get("sha256", "")),)
    )


def kept_text(archive: Path, digest: str) -> str:
    """Return the text of a policy that was in force, by its hash. Raises: JournalError `policy.not-kept`."""
    if _DIGEST.fullmatch(digest) is None:
        raise JournalError("policy.not-kept", f"{digest[:80]!r} names no policy")
    kept = archive / f"{digest}.toml"
    path = kept if kept.exists() else next(archive.parent.glob(f"*/journal/{archive.name}/{digest}.toml"), kept)
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise JournalError("policy.not-kept", f"the text of the policy {digest[:16]} is not in {archive}") from exc
    if sha256(content).hexdigest() != digest:
        raise JournalError("policy.not-kept", f"{path} is not the text that was loaded: it was edited")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise JournalError("policy.not-kept", f"{path} cannot be read by this version: {exc}") from exc


def kept_policy(archive: Path, digest: str) -> Policy:
    """Return a policy that was in force. Raises: JournalError `policy.not-kept`."""
    text = kept_text(archive, digest)
    try:
        return parse_untested(text, f"policy-{digest[:12]}.toml")
    except PolicyError as exc:
        message = f"the policy {digest[:16]} cannot be read by this version: {exc}"
        raise JournalError("policy.not-kept", message) from exc
