"""What the page may ask, a file for each subject."""

import logging

from gateway.page.desk.answers import (
    account,
    administration,
    environments,
    holdings,
    journal,
    people,
    policies,
    reach,
    recordings,
    runs,
    sessions,
    viewer,
)
from gateway.page.desk.answers_register import joined
from gateway.page.desk.site import Site

_SUBJECTS = (
    *(viewer, environments, account, runs, people, administration),
    *(holdings, journal, policies, reach, recordings, sessions),
)
KNOWN = joined(one.answers for one in _SUBJECTS)
_log = logging.getLogger(__name__)


def read_ahead(site: Site) -> None:
    """Read what takes longest the first time, so that nobody waits for it: the engine's library is loaded by that."""
    try:
        holdings.look(site)
    except Exception as exc:  # noqa: BLE001 - whoever asks for it is told why it cannot be read
        _log.info("GPUs and who holds them could not be read ahead: %s", exc)
