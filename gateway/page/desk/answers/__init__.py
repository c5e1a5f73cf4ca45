"""What the page may ask, a file for each subject."""

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

_SUBJECTS = (
    *(viewer, environments, account, runs, people, administration),
    *(holdings, journal, policies, reach, recordings, sessions),
)
KNOWN = joined(one.answers for one in _SUBJECTS)
