"""The views, a file for each subject; the menu has them in this order."""

from gateway.page.web.views import environments, people

VIEWS = (environments.view, people.view)
