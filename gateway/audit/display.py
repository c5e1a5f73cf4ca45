"""Showing what was recorded on a terminal or a page without letting it act there."""

import unicodedata
from typing import Any

from gateway.audit.record import Record

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
COLUMNS = ("time", "code", "user", "environment", "decision", "address", "what", "reference")


def printable(text: str) -> str:
    """Replace control, format (bidi marks among them), surrogate and unassigned characters by visible escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(character) if unicodedata.category(character) in _UNSAFE else character for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def row(record: Record) -> dict[str, str]:
    """Return a record as one table row, safe to print."""
    cells: dict[str, Any] = {
        "time": record.at.strftime("%Y-%m-%d %H:%M:%S"),
        "code": record.code,
        "user": record.actor.get("name", ""),
        "environment": record.environment,
        "decision": record.decision,
        "address": record.actor.get("address", ""),
        "what": what(record),
        "reference": record.reference,
    }
    return {name: printable(str(value)) for name, value in cells.items()}


def what(record: Record) -> str:
    """Return the detail of a record in one phrase, with the reason if there is one."""
    details = ", ".join(f"{name}={value}" for name, value in record.detail.items() if value not in {"", None})
    return "; ".join(part for part in (details, record.reason) if part)
