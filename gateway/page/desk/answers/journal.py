"""The journal for auditors: its records, the last first, and what proves that they are those that were written."""

from typing import Any

from gateway.audit.codes import CODES
from gateway.audit.display import printable, row
from gateway.audit.read import Filter
from gateway.audit.read_newest import newest
from gateway.audit.record import Record
from gateway.errors import JournalError, UsageError
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.proof import Proof
from gateway.page.desk.site import Asker, Site
from gateway.page.desk.spans import moment_asked
from gateway.readings import OfEach

answers = Answers()
ROWS = 100
_PROOF: OfEach[Site, Proof] = OfEach(lambda site: Proof(site.settings))


@answers.to("journal.records", level="auditor")
def records(
    site: Site,
    _asker: Asker,
    user: str = "",
    action: str = "",
    since: str = "",
    until: str = "",
    denied: bool = False,
    reference: str = "",
    before: str = "",
) -> dict[str, Any]:
    """Return one page of records; `older` of the answer is `before` of the next one."""
    wanted = Filter(
        user.strip(),
        action.strip(),
        moment_asked("since", since),
        moment_asked("until", until),
        denied,
        reference.strip(),
    )
    journal = site.settings.all_journals
    try:
        if before:
            _require_place(before)
        page = newest(journal, wanted, limit=ROWS, before=before)
    except FileNotFoundError:
        return {"rows": [], "older": ""}
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}", "'devgw audit verify'") from exc
    return {"rows": [_described(one) for one in page.records], "older": page.older}


@answers.to("journal.codes", level="auditor")
def codes(_site: Site, _asker: Asker) -> list[str]:
    """Return every code that there can be."""
    return sorted(CODES)


@answers.to("journal.proof", level="auditor")
def proof(site: Site, _asker: Asker) -> dict[str, Any]:
    """Return what the signed heads cover and how old they are, and what the last check found."""
    return _PROOF.of(site).known()


@answers.to("journal.check", level="auditor", journaled=True)
def check(site: Site, _asker: Asker) -> None:
    """Begin to check all of the journal, in a process of its own; one that is under way goes on."""
    _PROOF.of(site).begin()


def _require_place(before: str) -> None:
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 for part in before.split("-")):
        raise UsageError("page.bad-question", "there is no such page of the journal", "begin with the newest records")


def _described(record: Record) -> dict[str, Any]:
    return row(record) | {
        "number": record.number,
        "at": record.at.isoformat(),
        "meaning": CODES.get(record.code, ""),
        "key": printable(record.actor.get("key", "")),
        "kind": record.actor.get("kind", ""),
        "rule": printable(record.rule),
        "reason": printable(record.reason),
        "detail": [[printable(name), printable(str(value))] for name, value in record.detail.items()],
        "hash": record.hash,
    }
