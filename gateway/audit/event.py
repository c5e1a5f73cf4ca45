"""One event per outcome: what happened, who did it, what was decided by which rule. `journal` writes it down."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from gateway.model import Actor

_REFERENCE_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base32: no letter is mistaken when read aloud


def new_reference() -> str:
    """Return the id a refused user is told and an administrator looks up: 10 characters, 50 bits."""
    return "".join(_REFERENCE_ALPHABET[byte & 31] for byte in secrets.token_bytes(10))


@dataclass(frozen=True, slots=True)
class Event:
    """A fact in the past tense, such as `forward.denied`.

    `detail` never holds a secret; names from outside are escaped on writing.
    """

    code: str
    actor: Actor
    environment: str = ""
    decision: Literal["allowed", "denied", ""] = ""
    rule: str = ""
    reason: str = ""
    detail: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    reference: str = field(default_factory=new_reference)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
