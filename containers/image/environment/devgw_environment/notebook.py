"""How the notebook server is started: JupyterLab on a Unix socket, with settings the user's files cannot loosen."""

import os
import sys
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.open_hosts import proxy_variables

SETTINGS = Path(__file__).with_name("jupyter_settings.py")


def notebook_command(environment: Environment) -> list[str]:
    """Command line of the server; what guards access stands here because arguments win over every file.

    `-s` keeps the user's own packages out of the server and `-P` the files of the home it starts in (a broken one would
    take the notebook away); kernels see them.
    """
    return [
        sys.executable, "-s", "-P", "-m", "jupyterlab",
        f"--config={SETTINGS}",
        f"--ServerApp.sock={environment.notebook_socket}",
        "--ServerApp.sock_mode=0600",
        "--ServerApp.identity_provider_class=devgw_environment.identity.DevgwIdentityProvider",
        "--ServerApp.allow_unauthenticated_access=False",
        "--ServerApp.open_browser=False",
        f"--ServerApp.root_dir={environment.home}",
    ]  # fmt: skip


def notebook_variables(environment: Environment) -> dict[str, str]:
    """Variables of the server and of its kernels and terminals."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER_")}
    return {
        **environment.tool_variables,
        **proxy_variables(environment),
        **inherited,
        "HOME": str(environment.home),
        "USER": environment.user,
        "LOGNAME": environment.user,
        "SHELL": environment.shell,
        "PATH": environment.search_path,
        "JUPYTER_RUNTIME_DIR": str(environment.scratch / "jupyter"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "DEVGW_CONFIG_FOLDER": str(environment.config_folder),
    }
