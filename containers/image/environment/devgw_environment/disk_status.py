"""A Jupyter server extension that says how full the environment's disk is, for JupyterLab's status bar.

That there is a disk of a size that is kept, the gateway says (`disk.json`). How full it is the kernel says at once:
a volume is a file system of its own, or of a project whose size statfs(2) answers for.
"""

import json
import os
from typing import Any

from devgw_environment.contract import Environment

PATH = "devgw/disk"
LEVELS = (80, 95)


def disk_status(environment: Environment) -> dict[str, int | str]:
    """Return size, use and what to say about it; nothing where no size is kept.

    `percent` is of bytes or of inodes, whatever is nearer to its end; `level` the last of LEVELS that was reached.
    """
    try:
        told = json.loads((environment.config_folder / "disk.json").read_text())
        found = os.statvfs(environment.home)
    except (OSError, ValueError):
        return {}
    used = found.f_blocks - found.f_bfree
    size = used + found.f_bavail
    used_inodes = found.f_files - found.f_ffree
    percent = max(100 * used // max(1, size), 100 * used_inodes // max(1, found.f_files))
    level = max((level for level in LEVELS if percent >= level), default=0)
    note = told.get("note", "") if level and isinstance(told, dict) else ""
    return {
        "size_bytes": size * found.f_frsize,
        "used_bytes": used * found.f_frsize,
        "percent": percent,
        "level": level,
        "note": note or (f"your disk is {percent} % full: remove files" if level else ""),
    }


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "devgw_environment.disk_status"}]


def _load_jupyter_server_extension(server: Any) -> None:
    from jupyter_server.base.handlers import APIHandler  # here, as what reads a disk needs no web server
    from jupyter_server.utils import url_path_join
    from tornado import web

    environment = Environment.from_process()

    class DiskHandler(APIHandler):
        _track_activity = False  # to look is not to use

        @web.authenticated
        def get(self) -> None:
            self.finish(json.dumps(disk_status(environment)))

    base = server.web_app.settings["base_url"]
    server.web_app.add_handlers(".*$", [(url_path_join(base, PATH), DiskHandler)])
