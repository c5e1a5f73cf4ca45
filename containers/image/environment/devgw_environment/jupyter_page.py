"""What JupyterLab's page is told: the plugins that do not run, and whose notebook it is."""

from typing import Any

from devgw_environment.identity import environment_name

NEWS = "@jupyterlab/apputils-extension:announcements"
"""It asks each user whether to fetch Jupyter's news, also where `news_url` is None; an environment reaches none."""


def prepare_page(_handler: object, page_config: dict[str, Any]) -> dict[str, Any]:
    """Change the page's settings, which are kept from call to call (jupyterlab_server's `page_config_hook`).

    The plugin is disabled beside those that others have disabled. The name ends the titles of a browser's tabs.
    """
    disabled = page_config.get("disabledExtensions") or []
    page_config["disabledExtensions"] = list(dict.fromkeys([*disabled, NEWS]))
    page_config["appName"] = f"JupyterLab of {environment_name()}"
    return page_config
