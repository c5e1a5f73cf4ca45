"""Compares the store with the journal: a key or user that is in the database without ever being recorded.

Whoever edits the database file to let a key in, or swaps one, is found by comparing it with the chained records.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.audit.read import Filter, stream
from gateway.audit.segments import first_record, journals_in, segments

_OF_KEYS = frozenset({"key.added", "key.removed", "user.renamed"})
_OF_DOORS = frozenset({"user.disabled", "user.enabled", "user.renamed", "user.deleted"})


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A difference between the journal and the store. `certain` is False where pruned records could explain it."""

    kind: str
    user: str
    subject: str
    message: str
    certain: bool = True


def compare(
    journal: Path, keys: Mapping[str, Iterable[str]], disabled: Iterable[str] | None = None
) -> tuple[Discrepancy, ...]:
    """Compare the store's keys (fingerprints by user), and who is disabled, with what the journal recorded.

    Raises: OSError, ValueError, when the journal cannot be read; run `verify` first.
    """
    is_whole = _is_whole(journal)
    found = [*_compare_keys(_recorded_keys(journal), keys, is_whole=is_whole)]
    if disabled is not None:
        found += _compare_disabled(journal, set(keys), set(disabled))
    return tuple(sorted(found, key=lambda one: (one.user, one.kind, one.subject)))


def _recorded_keys(journal: Path) -> dict[tuple[str, str], str]:
    """Return the last thing recorded of each user's key: `key.added` or `key.removed`."""
    last: dict[tuple[str, str], str] = {}
    for record in stream(journal, Filter(codes=_OF_KEYS)):
        user = str(record.detail.get("user", ""))
        if record.code == "user.renamed":
            moved = {key: code for key, code in last.items() if key[0] == user}
            last = {key: code for key, code in last.items() if key not in moved}
            last |= {(str(record.detail.get("to", "")), key[1]): code for key, code in moved.items()}
        else:
            last[user, str(record.detail.get("fingerprint", ""))] = record.code
    return last


def _compare_keys(
    recorded: Mapping[tuple[str, str], str], keys: Mapping[str, Iterable[str]], *, is_whole: bool
) -> Iterable[Discrepancy]:
    stored = {(user, fingerprint) for user, fingerprints in keys.items() for fingerprint in fingerprints}
    for user, fingerprint in stored:
        last = recorded.get((user, fingerprint))
        if last == "key.removed":
            yield Discrepancy("key.came-back", user, fingerprint, "was removed, but is in the database")
        elif last is None:
            message = "is in the database, but no record says who added it"
            yield Discrepancy("key.unrecorded", user, fingerprint, message, certain=is_whole)
    for (user, fingerprint), last in recorded.items():
        if last == "key.added" and (user, fingerprint) not in stored:
            message = "was added and never removed, but is not in the database"
            yield Discrepancy("key.vanished", user, fingerprint, message)


def _compare_disabled(journal: Path, users: set[str], disabled: set[str]) -> Iterable[Discrepancy]:
    last: dict[str, str] = {}
    for record in stream(journal, Filter(codes=_OF_DOORS)):
        user = str(record.detail.get("user", ""))
        if record.code == "user.renamed":
            last[str(record.detail.get("to", ""))] = last.pop(user, "")
        elif record.code == "user.deleted":
            last.pop(user, None)
        else:
            last[user] = record.code
    for user in users:
        if last.get(user) == "user.disabled" and user not in disabled:
            yield Discrepancy("user.came-back", user, user, "was disabled, but is enabled in the database")
        if last.get(user) != "user.disabled" and user in disabled:
            yield Discrepancy("user.disabled-unrecorded", user, user, "is disabled, but no record says by whom")


def _is_whole(journal: Path) -> bool:
    if several := journals_in(journal):
        return all(map(_is_whole, several))
    found = segments(journal)
    return bool(found) and first_record(found[0].path).number == 1
