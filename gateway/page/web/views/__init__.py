"""The views, a file for each subject; the menu has them in this order."""

from gateway.page.web.views import (
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
)

_OWN = (environments, runs, account)
_OF_AUDITORS = (people, holdings, sessions, recordings, journal, reach, policies)
VIEWS = tuple(one.view for one in (*_OWN, *_OF_AUDITORS, administration))
