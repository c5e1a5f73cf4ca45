"""Processes beside the one that serves SSH: connections to hosts outside by name, and the page.

`process.own_process` starts them, writes the settings and then each policy in force, and ends them by closing that.
"""

import logging
import sys

import uvloop

from gateway.page.desk.web_process import WebProcess
from gateway.process.orders import Obedient, obey


def main() -> None:
    """Serve until standard input ends. The page's other half loads beside what is loaded here."""
    kind, *arguments = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{kind}] %(message)s")
    web = WebProcess(*map(int, arguments)) if kind == "page" else None
    from gateway.ssh.descriptors import raise_limit

    def made(settings: bytes) -> Obedient:
        from gateway.app.composition import App
        from gateway.config import Settings

        app = App(Settings.model_validate_json(settings))
        if web is not None:
            from gateway.page.desk.process import PageDesk

            return PageDesk(app, web)
        from gateway.background.hosts_by_name import HostsByName, SiteParts

        return HostsByName(SiteParts.of(app))

    raise_limit()
    uvloop.run(obey(made))


if __name__ == "__main__":
    main()
