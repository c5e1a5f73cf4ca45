"""`python -m tests.support.fake_devgw …`: the real command line on a fake engine that has one image, for another host.

Nothing runs on it: what is asked of it is what stands in its database and directories.
"""

import sys

from gateway.cli.program import run
from gateway.config import Settings
from tests.cli.services import AnsweringEngine
from tests.cli.site import SiteApp
from tests.fakes.engine import FakeDaemon
from tests.fakes.image_builder import FakeImageBuilder


def _app(settings: Settings) -> SiteApp:
    daemon = FakeDaemon()
    daemon.add_image("devgw/env:cpu", {"org.devgw.profile": "cpu"})
    return SiteApp(settings, AnsweringEngine(daemon), FakeImageBuilder(daemon), daemon)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], _app))
