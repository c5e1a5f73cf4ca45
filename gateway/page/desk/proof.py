"""What proves the journal: the heads signed over it, and a check from end to end in a process of its own.

The check of ten million records takes a core for half a minute; nobody's page waits for it.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.audit.head_signing import current_head
from gateway.audit.heads import Head, last_note, open_head
from gateway.audit.site import own_verifiers, verify_each
from gateway.config import Settings
from gateway.errors import DevgwError, JournalError

_CHECK_SECONDS = 3600
_log = logging.getLogger(__name__)


class Proof:
    """The journals of one site. Its methods may be called from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._is_checking = False
        self._found: dict[str, Any] | None = None

    def known(self) -> dict[str, Any]:
        """Return for each journal its last head and end, and what the last check found."""
        journals = self._settings.journals
        heads = last_heads(journals)
        chains = [
            _chain(name, directory, heads.get(name)) for name, directory in journals.items() if directory.is_dir()
        ]
        return {"chains": chains, "checking": self._is_checking, "check": self._found}

    def begin(self) -> None:
        """Check everything now, unless that is being done."""
        with self._guard:
            if self._is_checking:
                return
            self._is_checking = True
        threading.Thread(target=self._check, name="check of the journal", daemon=True).start()

    def _check(self) -> None:
        began = datetime.now(UTC)
        try:
            found = _checked_apart(self._settings.journals)
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            _log.error("the journal could not be checked: %s", exc)
            found = {"fault": "the check did not come to its end; the gateway's log says why"}
        self._found = found | {"began_at": began.isoformat(), "ended_at": datetime.now(UTC).isoformat()}
        self._is_checking = False


def last_heads(journals: Mapping[str, Path]) -> dict[str, Head | str]:
    """Return each journal's head signed last; in its place why there is none that can be believed."""
    heads: dict[str, Head | str] = {}
    for name, directory in journals.items():
        file = directory.with_name("journal_head.last")
        try:
            heads[name] = open_head(last_note(file.read_text()), *own_verifiers({name: directory}))
        except FileNotFoundError:
            heads[name] = "no head was signed yet"
        except (OSError, UnicodeDecodeError, JournalError) as exc:
            heads[name] = getattr(exc, "message", None) or str(exc)
    return heads


def _chain(name: str, directory: Path, head: Head | str | None) -> dict[str, Any]:
    last = current_head(directory, "").size
    signed = head if isinstance(head, Head) else None
    return {
        "gateway": name,
        "last": last,
        "covered": signed.size if signed else 0,
        "signed_at": signed.at.isoformat() if signed and signed.at else None,
        "why_not": head if isinstance(head, str) else "",
    }


def _checked_apart(journals: Mapping[str, Path]) -> dict[str, Any]:
    told = json.dumps({name: str(directory) for name, directory in journals.items()})
    command = [sys.executable, "-P", "-m", __name__, told]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_CHECK_SECONDS, check=True)
    return dict(json.loads(done.stdout))


def main(told: str) -> None:
    """Check the journals that are named, and print what was found."""
    os.nice(10)
    journals = {name: Path(directory) for name, directory in json.loads(told).items()}
    heads = [one for one in last_heads(journals).values() if isinstance(one, Head)]
    try:
        reports = verify_each(journals, own_verifiers(journals), heads)
        found: dict[str, Any] = {"chains": {name: report.as_dict() for name, report in reports.items()}}
    except DevgwError as exc:
        found = {"fault": exc.message}
    print(json.dumps(found))  # noqa: T201 - the answer of this process


if __name__ == "__main__":
    main(sys.argv[1])
