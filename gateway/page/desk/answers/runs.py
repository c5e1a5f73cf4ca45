"""A user's runs of the training runner."""

import time
from dataclasses import asdict
from typing import Any

from gateway.environments.layout import Layout
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.run_files import runs_in
from gateway.page.desk.site import Asker, Site

answers = Answers()


@answers.to("runs.mine")
def mine(site: Site, asker: Asker) -> list[dict[str, Any]]:
    """Return what the asker's runs wrote of themselves."""
    now, found = time.time(), []
    for environment in site.table.all(asker.user):
        logs = Layout.of(site.settings.state_dir, environment.ref).volumes / "logs"
        for run in runs_in(logs):
            silent = max(0.0, now - run.at)
            age = run.checkpoint_age_seconds
            ages = {"silent_seconds": silent, "checkpoint_age_seconds": None if age is None else age + silent}
            found.append(asdict(run) | ages | {"environment": str(environment.ref)})
    return found
