"""What the page may ask, a file for each subject."""

from gateway.page.desk.answers import account, administration, environments, people, runs, viewer
from gateway.page.desk.answers_register import joined

KNOWN = joined(one.answers for one in (viewer, environments, account, runs, people, administration))
