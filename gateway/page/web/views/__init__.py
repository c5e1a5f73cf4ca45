"""The views, a file for each subject; the menu has them in this order."""

from gateway.page.web.views import account, administration, environments, people, runs

VIEWS = tuple(one.view for one in (environments, runs, account, people, administration))
