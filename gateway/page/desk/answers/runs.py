"""A user's runs of the training runner."""

import time
from collections import defaultdict
from dataclasses import asdict
from typing import Any

from gateway.environments.layout import Layout
from gateway.model import EnvironmentRef
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.run_files import runs_in
from gateway.page.desk.site import Asker, Site
from gateway.readings import shared_of

answers = Answers()


def _by_user(site: Site) -> dict[str, list[EnvironmentRef]]:
    found: defaultdict[str, list[EnvironmentRef]] = defaultdict(list)
    for ref in site.table.refs():
        found[ref.user].append(ref)
    return found


_environments = shared_of(_by_user)


@answers.to("runs.mine")
def mine(site: Site, asker: Asker) -> list[dict[str, Any]]:
    """Return what the asker's runs wrote of themselves."""
    now, found = time.time(), []
    for ref in _environments.of(site).get().get(asker.user, ()):
        logs = Layout.of(site.settings.state_dir, ref).volumes / "logs"
        for run in runs_in(logs):
            silent = max(0.0, now - run.at)
            age = run.checkpoint_age_seconds
            ages = {"silent_seconds": silent, "checkpoint_age_seconds": None if age is None else age + silent}
            found.append(asdict(run) | ages | {"environment": str(ref)})
    return found
