"""Policies that were in force: when, what each changed, and the difference between any two."""

from pathlib import Path
from typing import Any

from gateway.audit.display import printable
from gateway.audit.policy_history import kept_policy, kept_text
from gateway.audit.read import Filter
from gateway.audit.read_newest import newest
from gateway.errors import JournalError
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site
from policies.diff import diff

answers = Answers()
ROWS = 50


@answers.to("policies.history", level="auditor")
def history(site: Site, _asker: Asker, before: str = "") -> dict[str, Any]:
    """Return the policies that came into force, the last first."""
    try:
        page = newest(site.settings.all_journals, Filter(action="policy.loaded"), limit=ROWS, before=before)
    except FileNotFoundError:
        return {"rows": [], "older": ""}
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal cannot be read: {exc}", "'devgw audit verify'") from exc
    rows = [
        {
            "at": one.at.isoformat(),
            "by": printable(one.actor.get("name", "")),
            "sha256": printable(str(one.detail.get("sha256", ""))),
            "file": printable(str(one.detail.get("file", ""))),
            "change_count": int(one.detail.get("change_count") or 0),
            "changes": [printable(change) for change in str(one.detail.get("changes") or "").split("; ") if change],
        }
        for one in page.records
    ]
    return {"rows": rows, "older": page.older}


@answers.to("policies.text", level="auditor")
def text(site: Site, _asker: Asker, sha256: str) -> str:
    """Return a policy's text, line by line as it was loaded."""
    lines = kept_text(_archive(site), sha256).splitlines()
    return "\n".join(printable(line.replace("\t", "    ")) for line in lines)


@answers.to("policies.difference", level="auditor")
def difference(site: Site, _asker: Asker, old: str, new: str) -> list[dict[str, Any]]:
    """Say who gained what and who lost what between two policies."""
    archive = _archive(site)
    return [
        {"who": [printable(user) for user in one.users], "verb": one.verb, "what": printable(one.effect)}
        for one in diff(kept_policy(archive, old), kept_policy(archive, new))
    ]


def _archive(site: Site) -> Path:
    return site.settings.all_journals / site.settings.policies_dir.name
