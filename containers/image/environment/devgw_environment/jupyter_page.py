"""What JupyterLab's page is told: the plugins that do not run."""

from typing import Any

NEWS = "@jupyterlab/apputils-extension:announcements"
"""It asks each user whether to fetch Jupyter's news, also where `news_url` is None; an environment reaches none."""


def page_without_news(_handler: object, page_config: dict[str, Any]) -> dict[str, Any]:
    """Disable the plugin beside those that others have disabled (jupyterlab_server's `page_config_hook`)."""
    disabled = page_config.get("disabledExtensions") or []
    page_config["disabledExtensions"] = list(dict.fromkeys([*disabled, NEWS]))
    return page_config
