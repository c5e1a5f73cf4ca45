"""What the page may ask, a file for each subject."""

from gateway.page.desk.answers import environments, people, viewer
from gateway.page.desk.answers_register import joined

KNOWN = joined((viewer.answers, environments.answers, people.answers))
