"""The journals of several gateways of one site: each is a chain of its own, whose heads bear its gateway's name."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.audit.head_key import read_verifiers
from gateway.audit.head_signing import kept_heads
from gateway.audit.heads import Head, Verifier
from gateway.audit.verify import Report, verify


def own_verifiers(journals: Mapping[str, Path]) -> tuple[Verifier, ...]:
    """Return the keys that each gateway left beside its journal. Raises: JournalError `head.bad-key`."""
    files = [path.parent / "journal_head.pub" for path in journals.values()]
    return tuple(verifier for file in files if file.exists() for verifier in read_verifiers(file))


def verify_each(
    journals: Mapping[str, Path], verifiers: Iterable[Verifier], heads: Iterable[Head]
) -> dict[str, Report]:
    """Verify each chain against the heads of its own gateway. Raises: JournalError."""
    several, reports = list(heads), {}
    for name, directory in journals.items():
        if directory.is_dir():
            own = [verifier for verifier in verifiers if _is_of(verifier.name, name)]
            kept = kept_heads(directory, *own) if own else None
            reports[name] = verify(directory, *(head for head in several if _is_of(head.origin, name)), kept=kept)
    return reports


def missing_journals(journals: Mapping[str, Path], serving: Iterable[str]) -> list[str]:
    """Name the gateways that serve, or did within a day, and whose journal is not where the others are."""
    there = {name for name, directory in journals.items() if directory.is_dir()}
    return sorted(set(serving) - there)


def _is_of(name: str, instance: str) -> bool:
    return name.rpartition("/")[2] == instance
